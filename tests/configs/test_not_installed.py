"""A checkout that is only on Python's path raises an error that names what is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

import deeplab_jax


def test_recipes_of_a_package_that_is_not_installed(tmp_path):
    source = Path(deeplab_jax.__file__).parent
    shutil.copytree(source, tmp_path / "deeplab_jax", ignore=shutil.ignore_patterns("__pycache__"))
    program = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
from deeplab_jax import config, errors
try:
    config.load("camvid")
except errors.DeepLabError as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert f"but {tmp_path / 'deeplab_jax'} is only on Python's import path" in found.stdout
    assert "pip install -e ." in found.stdout
