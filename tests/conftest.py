"""Options and fixtures of all tests."""

import contextlib
import gc
import importlib
import itertools
import os
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A program that several tests compile is compiled once; the tests of real processes inherit it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled"))

# PyTorch's compiler and TensorFlow both bring LLVM: a process that loads TensorFlow's first crashes
# when it loads PyTorch's.
with contextlib.suppress(ImportError):
    importlib.import_module("triton")

# Traced programs are millions of objects: looking for cycles among them again and again while the
# next ones are traced takes a quarter of the time.
gc.disable()
FILES, FILES_BETWEEN_WHOLE_SEARCHES = itertools.count(1), 40


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Collects garbage between test files; what is left is searched again after many of them."""
    yield
    if nextitem is None or nextitem.path != item.path:
        if next(FILES) % FILES_BETWEEN_WHOLE_SEARCHES == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--shard=k/n` and `--check-shapes`."""
    parser.addoption("--shard", help="Run one of n parts of the slow tests, as in 2/8.")
    parser.addoption(
        "--check-shapes",
        action="store_true",
        help="Check the array types that ops, losses, metrics and crf declare, in every call.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Checks array types if `--check-shapes` is given; before those packages are imported."""
    if config.getoption("--check-shapes"):
        import jaxtyping

        packages = [f"deeplab_jax.{name}" for name in ("ops", "losses", "metrics", "crf")]
        jaxtyping.install_import_hook(packages, "shape_checks.check_shapes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the slow tests of one shard: those of every n-th file that has some."""
    if config.getoption("--shard") is None:
        return
    part, count = map(int, config.getoption("--shard").split("/"))
    if not 1 <= part <= count:
        raise pytest.UsageError(f"--shard={part}/{count}: give 1 to {count} of {count}")
    marked = [item for item in items if item.get_closest_marker("slow")]
    files = sorted({item.path for item in marked})
    own = set(files[part - 1 :: count])
    kept = [item for item in marked if item.path in own]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Folder of real images and published weights; skips the test if there is none."""
    folder = pathlib.Path(os.environ.get("DEEPLAB_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("DEEPLAB_SHARED names no folder with real images")
    return folder
