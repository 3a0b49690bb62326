"""Content of a workdir: config with its network, starts, saved states."""

import contextlib
import copy
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.checkpointing.orbax_items import open_checkpoints, restore_items, save_items
from deeplab_jax.checkpointing.saved_states import (
    EMA,
    OPTIMIZER,
    VARIABLES,
    checkpoints_directory,
    saved_steps,
    set_damaged_aside,
)
from deeplab_jax.data.datasets import fingerprint_differences
from deeplab_jax.data.descriptors import RGB, Bands
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import check_writable, write_text
from deeplab_jax.formats import (
    FORMAT_FIELD,
    FORMAT_VERSION,
    check_format_version,
    rewritten_version,
)
from deeplab_jax.models import Architecture, resolve_stored
from deeplab_jax.parallel import first_host_first, is_first_host
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.state import TrainState

CONFIG_FILE = "config.json"
# Fingerprints of the training and validation data.
DATA_FILE = "data.json"
MANIFEST_FILE = "manifest.json"
PACKAGES = ("deeplab_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def network_of(
    config: ConfigDict,
    num_classes: int = 21,
    version: int = FORMAT_VERSION,
    bands: Bands = RGB,
) -> Architecture:
    """Returns the network of a config.

    Args:
      config: see deeplab_jax/config_fields.py.
      num_classes: number of classes of the dataset.
      version: format version whose defaults apply to unset fields.
      bands: bands of the dataset. Unless they are RGB, the network normalizes each by the mean and
        standard deviation of the dataset where the config does not set another normalization.

    Raises:
      DeepLabError: values of the network contradict each other.
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
        # The dataset is not known where a recorded config is compared.
        data["in_channels"] = len(keywords["pixel_mean"])
    return resolve_stored(architecture, data | keywords, version)


def with_network(config: ConfigDict, network: Architecture) -> ConfigDict:
    """Returns a copy of the config with all keywords of the network set."""
    resolved = copy.deepcopy(config)
    model, values = resolved.model, network.describe()
    with model.ignore_type():
        for name in model:
            if name in values:
                model[name] = values[name]
        # Its rates are among the values.
        model.aspp = None
    return resolved


def claim(
    workdir: pathlib.Path, config: ConfigDict, data: Mapping[str, dict[str, Any]] | None = None
) -> ConfigDict:
    """Records config and data of a run in its workdir, or checks that they are those recorded.

    The recorded config contains every keyword of the network. A run that an earlier release started
    keeps the format version of that release, which determines the defaults of unset keywords.

    Args:
      workdir: directory of the run.
      config: config of the run.
      data: fingerprints of the datasets by role, such as `train`; None skips the comparison. A
        workdir of an earlier release without fingerprints accepts any data.

    Returns:
      The config with all keywords of the network set.

    Raises:
      DeepLabError: the workdir belongs to a run with another config or other data; the message
        names the differences, and nothing is written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path, version = workdir / CONFIG_FILE, format_version(workdir)
    resolved = _resolved(config, version)
    if path.exists():
        changed = configs.differences(_resolved(_read_config(path), version), resolved)
        if changed:
            raise DeepLabError(
                f"{workdir} holds a run with another config ({'; '.join(changed)}); "
                "give another --workdir, or the same config to go on"
            )
    if data is not None:
        _check_data(workdir, data)
    values = resolved.to_dict() | {FORMAT_FIELD: rewritten_version(version)}
    write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")
    if data is not None:
        write_text(workdir / DATA_FILE, json.dumps(data, indent=2, sort_keys=True) + "\n")
    return resolved


def _check_data(workdir: pathlib.Path, data: Mapping[str, dict[str, Any]]) -> None:
    path = workdir / DATA_FILE
    if not path.exists():
        return
    try:
        before = {role: dict(facts) for role, facts in json.loads(path.read_text()).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DeepLabError(
            f"{path} cannot be read: {error}; delete it to record the present data instead"
        ) from error
    changed = [
        f"{role} {difference}"
        for role, facts in data.items()
        for difference in fingerprint_differences(before.get(role, {}), facts)
    ]
    if changed:
        raise DeepLabError(
            f"{workdir} holds a run on other data ({'; '.join(changed)}); give the same data to go "
            f"on, or another --workdir; to go on with the changed data all the same, delete {path}"
        )


def format_version(workdir: pathlib.Path | None) -> int:
    """Returns the format version of a workdir's config (the newest for a new workdir).

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
        return configs.from_json(path.read_text())
    except (AttributeError, ValueError) as error:
        raise DeepLabError(f"{path} cannot be read: {error}; give another --workdir") from error


def write_manifest(workdir: pathlib.Path, mesh: Mesh) -> None:
    """Adds this start to the workdir's list of starts: code, versions, devices, command."""
    path = workdir / MANIFEST_FILE
    starts = json.loads(path.read_text()) if path.exists() else []
    write_text(path, json.dumps([*starts, _manifest(mesh)], indent=2) + "\n")


def versions() -> dict[str, str]:
    """Returns the versions of the packages that decide what training computes."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


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
    """Returns the commit of the checkout, with `+` if it has changes; None outside a checkout."""
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


class Checkpointer(contextlib.AbstractContextManager):
    """The checkpoints of one run; a context manager that waits for the last save."""

    def __init__(self, workdir: pathlib.Path, reporter: Reporter | None = None) -> None:
        """Opens the checkpoints after setting damaged ones aside.

        Args:
          workdir: directory of the run.
          reporter: receives a warning for each damaged checkpoint.

        Raises:
          DeepLabError: there are checkpoints, and all are damaged; or none can be written.
        """
        self._workdir = workdir
        with first_host_first("checkpoints"):
            if is_first_host():
                check_writable(checkpoints_directory(workdir))
                set_damaged_aside(workdir, (reporter or Reporter()).warning)
        self._manager = open_checkpoints(workdir, read_only=False)

    def __exit__(self, *raised: object) -> None:
        try:
            with self._explained():
                self._manager.close()
        except DeepLabError:
            # An error that ended the block matters more than a save that failed after it.
            if raised[0] is None:
                raise

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None before the first."""
        return self._manager.latest_step()

    def save(self, state: TrainState, info: dict[str, Any], mean_iou: float | None = None) -> None:
        """Starts saving in the background; waits for an earlier save first.

        Args:
          state: state to save; may be donated once this returns.
          info: JSON-ready values: config, class names, data position.
          mean_iou: mean IoU of the validation at this step, which ranks the checkpoints.

        Raises:
          DeepLabError: this or the previous save failed; the message names the last good
            checkpoint.
        """
        metrics = None if mean_iou is None else {"mean_iou": mean_iou}
        with self._explained():
            save_items(self._manager, int(state.step), _items(state), info, metrics)

    def rank(self, state: TrainState, info: dict[str, Any], mean_iou: float) -> None:
        """Saves the newest checkpoint again, with the mean IoU of a validation made up later.

        The only checkpoint is left as it is, because replacing one removes it first.

        Args:
          state, info: as of `save`.
          mean_iou: mean IoU of the validation at the step of the state.

        Raises:
          DeepLabError: see `save`.
        """
        if len(self._manager.all_steps()) > 1:
            values = {"mean_iou": mean_iou}
            with self._explained():
                save_items(self._manager, int(state.step), _items(state), info, values, again=True)

    def wait(self) -> None:
        """Waits until all saves are on disk.

        Raises:
          DeepLabError: see `save`.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> TrainState:
        """Returns the state of the newest checkpoint with the shapes and shardings of `like`."""
        found = restore_items(self._manager, self.latest_step, _items(like))
        optimizer = found[OPTIMIZER]
        return TrainState(optimizer["step"], found[VARIABLES], optimizer["state"], found.get(EMA))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns an error of Orbax into one that names the last good checkpoint."""
        try:
            yield
        except Exception as failure:
            steps = saved_steps(self._workdir)
            kept = (
                f"the checkpoint of step {max(steps)} is good" if steps else "none was saved before"
            )
            reason = " ".join(str(failure).split())[:300]
            raise DeepLabError(
                f"could not save a checkpoint in {self._workdir}: {reason}; {kept}; "
                "make room and start the same command again"
            ) from failure


def _items(state: TrainState) -> dict[str, Any]:
    """Returns the trees of a state by the item that holds them."""
    optimizer = {"step": state.step, "state": state.optimizer_state}
    averages = {} if state.ema is None else {EMA: state.ema}
    return {VARIABLES: state.variables, OPTIMIZER: optimizer, **averages}
