"""What all tests share."""

import gc
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
# `experiments` is in the checkout and in no wheel.
sys.path.append(str(ROOT))

# A program that several tests compile is compiled once; the tests of real processes inherit it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled"))


# Traced programs are millions of objects: looking for cycles among them again and again while the
# next ones are traced takes a quarter of the time.
gc.disable()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Collects garbage between test files."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real images and published weights, where there is one."""
    folder = pathlib.Path(os.environ.get("DEEPLAB_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("DEEPLAB_SHARED names no folder with real images")
    return folder
