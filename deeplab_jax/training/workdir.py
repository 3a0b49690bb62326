"""What a workdir says of its run: config, manifest, model description."""

import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import write_text

CONFIG_FILE = "config.json"
MANIFEST_FILE = "manifest.json"
PACKAGES = ("deeplab_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Makes the workdir this run's, or finds that it already is.

    Raises:
      DeepLabError: it holds a run with another config; names the fields that differ.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / CONFIG_FILE
    if path.exists():
        changed = configs.differences(_read_config(path), config)
        if changed:
            raise DeepLabError(
                f"{workdir} holds a run with another config ({'; '.join(changed)}); "
                "give another --workdir, or the same config to go on"
            )
    write_text(path, configs.to_json(config) + "\n")


def _read_config(path: pathlib.Path) -> ConfigDict:
    try:
        return configs.from_json(path.read_text())
    except (AttributeError, ValueError) as error:
        raise DeepLabError(f"{path} cannot be read: {error}; give another --workdir") from error


def write_manifest(workdir: pathlib.Path, mesh: Mesh) -> None:
    """Adds this start to the workdir's list of starts: code, versions, devices, command."""
    path = workdir / MANIFEST_FILE
    starts = json.loads(path.read_text()) if path.exists() else []
    write_text(path, json.dumps([*starts, _manifest(mesh)], indent=2) + "\n")


def _manifest(mesh: Mesh) -> dict[str, Any]:
    devices = list(mesh.devices.flat)
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [str(device) for device in devices],
        "device_kind": devices[0].device_kind,
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
    }


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, `+` where it has changes; else None."""
    here = pathlib.Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", here, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
