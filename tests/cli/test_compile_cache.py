import jax
import pytest
from absl import flags as absl_flags

from deeplab_jax.cli import compile_cache


@pytest.fixture
def flags():
    """Reads flags of the compile cache; JAX's own settings are put back afterwards."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache

    def read(*words):
        values = absl_flags.FlagValues()
        compile_cache.define_flags(values)
        values(["command", *words])
        return values

    yield read
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_enable_compilation_cache", before[1])


def test_it_is_moved_and_switched_off(flags, tmp_path):
    compile_cache.apply_flags(flags(f"--compile_cache={tmp_path}"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    compile_cache.apply_flags(flags("--compile_cache=off"))
    assert not jax.config.jax_enable_compilation_cache


def test_clearing_takes_compiled_programs_and_nothing_else(flags, tmp_path):
    for name in ("jit_f-1234-cache", "jit_f-1234-atime", "photo.jpg"):
        (tmp_path / name).write_text(name)
    compile_cache.apply_flags(flags(f"--compile_cache={tmp_path}", "--clear_compile_cache"))
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_the_user_s_own_place_wins(monkeypatch, tmp_path):
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path))
    compile_cache.set_defaults(10)
    assert compile_cache.os.environ[compile_cache.VARIABLE] == str(tmp_path)
