import os
import subprocess
import sys

import jax
import pytest

from deeplab_jax.cli import compile_cache
from deeplab_jax.cli.flags import Flags
from deeplab_jax.files import PROGRAM_CACHE, program_directory


@pytest.fixture
def flags(monkeypatch):
    """Reads flags of the compile cache; JAX's own settings are put back afterwards."""
    monkeypatch.setenv(PROGRAM_CACHE, "")
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_enable_compilation_cache

    def read(*words):
        values = Flags()
        compile_cache.define_flags(values)
        values(["command", *words])
        return values

    yield read
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update("jax_enable_compilation_cache", before[1])


def test_it_is_moved_and_switched_off(flags, tmp_path):
    compile_cache.apply_flags(flags(f"--compile_cache={tmp_path}"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    assert program_directory() == tmp_path
    compile_cache.apply_flags(flags("--compile_cache=off"))
    assert not jax.config.jax_enable_compilation_cache
    assert program_directory() is None


def test_clearing_takes_compiled_programs_and_nothing_else(flags, tmp_path):
    for name in ("jit_f-1234-cache", "jit_f-1234-atime", "1234.stablehlo", "photo.jpg"):
        (tmp_path / name).write_text(name)
    compile_cache.apply_flags(flags(f"--compile_cache={tmp_path}", "--clear_compile_cache"))
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


LIMIT = compile_cache.LIMIT


def test_a_given_directory_has_no_default_limit(flags, tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_max_size
    try:
        for limit, expected in ((str(compile_cache.DEFAULT_BYTES), -1), ("1000", 1000)):
            monkeypatch.setenv(LIMIT, limit)
            jax.config.update("jax_compilation_cache_max_size", int(limit))
            compile_cache.apply_flags(flags(f"--compile_cache={tmp_path}"))
            assert jax.config.jax_compilation_cache_max_size == expected
    finally:
        jax.config.update("jax_compilation_cache_max_size", before)


def test_an_empty_variable_leaves_the_current_folder_unchanged(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(compile_cache.VARIABLE, "")
    (tmp_path / "pip-cache").write_text("not a compiled program")
    compile_cache.apply_flags(flags())
    assert [file.name for file in tmp_path.iterdir()] == ["pip-cache"]


def test_the_user_s_own_place_wins_and_has_no_limit(monkeypatch, tmp_path):
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path))
    monkeypatch.setenv(PROGRAM_CACHE, "")
    monkeypatch.delenv(LIMIT, raising=False)
    compile_cache.set_defaults()
    assert os.environ[compile_cache.VARIABLE] == str(tmp_path)
    assert LIMIT not in os.environ


COMPILE = """
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x * {factor})(1.0)
"""


def compile_a_program(factor, **environment):
    """Compiles in a process of its own and returns what it warned of."""
    process = subprocess.run(
        [sys.executable, "-c", COMPILE.format(factor=factor)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stderr


def test_a_program_without_its_date_of_use_does_not_stop_the_cache(flags, tmp_path, monkeypatch):
    monkeypatch.setenv(compile_cache.VARIABLE, str(tmp_path))
    monkeypatch.setenv(PROGRAM_CACHE, "")
    with_limit = {LIMIT: "1000000"}
    compile_a_program(2)
    assert [file.name.endswith("-cache") for file in tmp_path.iterdir()] == [True]
    # The reason for this treatment: without it, JAX before version 0.12 does not store the program.
    said = compile_a_program(3, **with_limit)
    assert "Error writing" in said or jax.__version_info__ >= (0, 12)
    compile_cache.apply_flags(flags())
    assert compile_a_program(3, **with_limit) == ""
    assert len(list(tmp_path.glob("*-cache"))) == len(list(tmp_path.glob("*-atime"))) == 2
