"""Reads and writes the files that describe a workdir: config, data fingerprints, manifest."""

import contextlib
import copy
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.checkpointing.saved_states import saved_steps
from deeplab_jax.data.datasets import fingerprint_differences
from deeplab_jax.data.descriptors import RGB, Bands
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import write_text
from deeplab_jax.formats import (
    FORMAT_FIELD,
    FORMAT_VERSION,
    check_format_version,
    rewritten_version,
)
from deeplab_jax.models import Architecture, resolve_stored
from deeplab_jax.training.writers import read_rows

CONFIG_FILE = "config.json"
# File with the fingerprints of the training and validation data.
DATA_FILE = "data.json"
# Role, in this file, of the dataset that a cross-validation divides into folds.
WHOLE = "whole"
# File with the settings of a run that its config does not contain; see `Run.adjustments`.
ADJUSTMENTS_FILE = "adjustments.json"
# Workdirs of the folds, in the workdir of a cross-validation.
FOLDS = "fold_*"
MANIFEST_FILE = "manifest.json"
PACKAGES = ("deeplab_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def network_of(
    config: ConfigDict,
    num_classes: int = 21,
    version: int = FORMAT_VERSION,
    bands: Bands = RGB,
) -> Architecture:
    """Returns the architecture that a config specifies.

    Args:
      config: config of the run, see deeplab_jax/config_fields.py.
      num_classes: number of classes of the dataset.
      version: format version of the config. It determines the defaults of fields that the config
        does not set.
      bands: bands of the images in the dataset. If they are not RGB, and the config does not set
        the normalization, the network normalizes each band by its mean and standard deviation in
        the dataset.

    Raises:
      DeepLabError: fields of the config section `model` are invalid or contradict each other.
    """
    fields: dict[str, Any] = config.model.to_dict()
    architecture = fields.pop("architecture")
    keywords = {name: value for name, value in fields.items() if value is not None}
    if keywords.get("image_pooling") == "crop":
        keywords.setdefault("pooling_crop", tuple(config.augmentation.crop_size))
    data: dict[str, Any] = {"num_classes": num_classes}
    if not bands.are_rgb:
        data |= {"in_channels": bands.count, "image_dtype": bands.dtype}
        normalization = keywords.setdefault("preprocessing", "mean_std")
        if normalization == "mean_std" and bands.mean:
            statistics = {"pixel_mean": bands.mean, "pixel_std": bands.std}
            data |= {name: value for name, value in statistics.items() if not keywords.get(name)}
            keywords = {name: keywords[name] for name in keywords if name not in data}
    elif keywords.get("pixel_mean"):
        # This is a stored config, whose dataset is not opened.
        data["in_channels"] = len(keywords["pixel_mean"])
    return resolve_stored(architecture, data | keywords, version)


def with_network(config: ConfigDict, network: Architecture) -> ConfigDict:
    """Returns a copy of a config whose section `model` contains all settings of `network`."""
    resolved = copy.deepcopy(config)
    model, values = resolved.model, network.describe()
    with model.ignore_type():
        for name in model:
            if name in values:
                model[name] = values[name]
        # `aspp` is a shorthand for `atrous_rates`, which are set here.
        model.aspp = None
    return resolved


def check_workdir(workdir: pathlib.Path) -> None:
    """Checks that a workdir is not a file, and that checkpoints can be saved in it atomically.

    Raises:
      DeepLabError: the workdir is a file, or is in a bucket of S3.
    """
    if str(workdir).startswith("s3://"):
        raise DeepLabError(
            f"{workdir} cannot be a workdir: S3 cannot rename a directory in one step, so an "
            "interruption could leave an incomplete checkpoint; give a local directory, or "
            "gs://BUCKET/…"
        )
    if workdir.is_file():
        raise DeepLabError(f"{workdir} is a file; give a directory as the workdir (--workdir)")


def claim(
    workdir: pathlib.Path,
    config: ConfigDict,
    data: Mapping[str, dict[str, Any]] | None = None,
    adjustments: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Writes config, data fingerprints and adjustments of a run to its workdir.

    If an earlier run has logged metrics or saved a checkpoint in the workdir, the workdir can only
    be used to resume the earlier run, and the arguments must match the files of that run. If the
    earlier run failed before it logged or saved anything, for example because the batch did not fit
    into memory, its files are replaced.

    In the written config, every field of the section `model` is set. An existing config of format
    version 1 keeps this version, which determines the defaults of unset fields. All other configs
    are written in the current version.

    Args:
      workdir: directory of the run.
      config: config of the run.
      data: {role: fingerprint} for each dataset. The roles are `train` and `validation`, or `whole`
        for a cross-validation. A fingerprint consists of name, number of images, classes and a hash
        of the examples. A workdir of an earlier release may have no fingerprints and then accepts
        any data. None: fingerprints are neither written nor compared.
      adjustments: settings of the run that the config does not contain, see `Run.adjustments`
        (default: none).

    Returns:
      The config with every field of the section `model` set.

    Raises:
      DeepLabError: the earlier run has another config, other data or other adjustments; the roles
        of its datasets differ from those in `data`; or its files cannot be read. The message lists
        the differences, and nothing is written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path, version = workdir / CONFIG_FILE, format_version(workdir)
    resolved = _resolved(config, version)
    resumable = has_results(workdir)
    if path.exists() and resumable:
        changed = configs.differences(_resolved(_read_config(path), version), resolved)
        if changed:
            raise DeepLabError(
                f"{workdir} has a run with another config ({'; '.join(changed)}); "
                "use another --workdir, or the same config to resume"
            )
        _check_adjustments(workdir, adjustments or {})
    if data is not None and resumable:
        _check_data(workdir, data)
    values = resolved.to_dict() | {FORMAT_FIELD: rewritten_version(version)}
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")
    if data is not None:
        write_text(workdir / DATA_FILE, json.dumps(data, indent=2, sort_keys=True) + "\n")
    if adjustments:
        text = json.dumps(dict(adjustments), indent=2, sort_keys=True) + "\n"
        write_text(workdir / ADJUSTMENTS_FILE, text)
    elif not resumable:
        (workdir / ADJUSTMENTS_FILE).unlink(missing_ok=True)
    return resolved


def has_results(workdir: pathlib.Path) -> bool:
    """Returns whether a workdir, or a directory of a fold in it, has metrics or checkpoints."""
    runs = (workdir, *workdir.glob(FOLDS))
    return any(read_rows(run) or saved_steps(run) for run in runs)


def _check_adjustments(workdir: pathlib.Path, adjustments: Mapping[str, Any]) -> None:
    path = workdir / ADJUSTMENTS_FILE
    try:
        before = dict(json.loads(path.read_text())) if path.exists() else {}
    except (TypeError, ValueError) as error:
        raise DeepLabError(f"{path} cannot be read: {error}; give another directory") from error
    changed = [
        f"{name}: {before.get(name)} → {adjustments.get(name)}"
        for name in sorted(before | dict(adjustments))
        if before.get(name) != adjustments.get(name)
    ]
    if changed:
        raise DeepLabError(
            f"{workdir} has a run with other settings ({'; '.join(changed)}); use the same "
            f"settings to resume, give another directory, or remove {workdir}"
        )


def _check_data(workdir: pathlib.Path, data: Mapping[str, dict[str, Any]]) -> None:
    path = workdir / DATA_FILE
    if not path.exists():
        return
    try:
        before = {role: dict(facts) for role, facts in json.loads(path.read_text()).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DeepLabError(
            f"{path}, which describes the data of the run, cannot be read: {error}; delete it to "
            "continue with the data of the current config"
        ) from error
    if before and before.keys() != data.keys():
        owner = "a cross-validation" if WHOLE in before else "a single run"
        raise DeepLabError(
            f"{workdir} contains {owner} (datasets: {', '.join(before)}), which a run with other "
            f"datasets ({', '.join(data)}) cannot resume; give another --workdir"
        )
    changed = [
        f"{role} {difference}"
        for role, facts in data.items()
        for difference in fingerprint_differences(before.get(role, {}), facts)
    ]
    if changed:
        raise DeepLabError(
            f"{workdir} has a run with other data ({'; '.join(changed)}); use the same data to "
            f"resume, or another --workdir. To resume with the changed data, delete {path}"
        )


def format_version(workdir: pathlib.Path | None) -> int:
    """Returns the format version of a workdir's config, or the current version for a new workdir.

    Raises:
      DeepLabError: the config cannot be read, or was written by a later release.
    """
    path = None if workdir is None else workdir / CONFIG_FILE
    if path is None or not path.exists():
        return FORMAT_VERSION
    _read_config(path)
    try:
        return check_format_version(json.loads(path.read_text()).get(FORMAT_FIELD, 1))
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}; give another --workdir") from error


def _resolved(config: ConfigDict, version: int) -> ConfigDict:
    return with_network(config, network_of(config, version=version))


def _read_config(path: pathlib.Path) -> ConfigDict:
    try:
        return configs.read(path)
    except DeepLabError as error:
        raise DeepLabError(f"{error}; give another --workdir") from error


def write_manifest(workdir: pathlib.Path, mesh: Mesh) -> None:
    """Appends an entry to `manifest.json`, which lists all starts of the run.

    The entry contains time, command, commit, versions, devices and mesh of the current start.

    Raises:
      DeepLabError: the file is damaged.
    """
    path = workdir / MANIFEST_FILE
    try:
        starts = list(json.loads(path.read_text())) if path.exists() else []
    except (TypeError, ValueError) as error:
        raise DeepLabError(
            f"{path}, which lists the starts of the run, cannot be read: {error}; delete it to "
            "continue the run"
        ) from error
    write_text(path, json.dumps([*starts, _manifest(mesh)], indent=2) + "\n")


def versions() -> dict[str, str | None]:
    """Returns the versions of the packages that affect the results of training.

    The version of a package that is not installed is None, for example that of deeplab_jax if a
    checkout is only on Python's import path.
    """
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _manifest(mesh: Mesh) -> dict[str, Any]:
    devices = list(mesh.devices.flat)
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions(),
        "devices": [str(device) for device in devices],
        "device_kind": devices[0].device_kind,
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
    }


def _commit() -> str | None:
    """Returns the Git commit of the code, with `+` if tracked files changed.

    The result is None without Git, and for a package that is installed inside the repository of
    another project, such as in its `.venv`.
    """
    code = pathlib.Path(__file__)

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", code.parent, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", code.name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
