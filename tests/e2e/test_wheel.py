"""The built wheel works where there is no checkout."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_the_wheel_works_outside_the_checkout(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel_words = ["wheel", "--no-deps", f"--wheel-dir={tmp_path}", str(ROOT)]
    subprocess.run([*pip, *wheel_words], check=True, timeout=300, cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", f"--target={site}", wheel], check=True)

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "deeplab_jax.cli.main", *words],
            env=os.environ | {"PYTHONPATH": str(site)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert (site / "deeplab_jax" / "py.typed").is_file()
    assert str(site) in run_python(site, tmp_path)
    assert "deeplab_v3plus" in run("models").stdout
    prepared = run("prepare", "shapes", "--data_dir=data", "--num_train=4", "--num_val=2")
    assert prepared.returncode == 0, prepared.stderr
    unknown = run("train", "--config=shapez", "--workdir=run")
    assert "did you mean 'shapes'?" in unknown.stderr
    # A recipe with modules of its own misses nothing but its data.
    recipe = run("train", "--config=deeplab_v3", "--workdir=run")
    assert "no dataset 'voc_segmentation'" in recipe.stderr


def run_python(site, cwd):
    """Returns where the package is imported from."""
    return subprocess.run(
        [sys.executable, "-c", "import deeplab_jax; print(deeplab_jax.__file__)"],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
