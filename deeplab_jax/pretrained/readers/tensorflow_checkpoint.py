"""TensorFlow's checkpoints: every variable of the network."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_tensorflow
from deeplab_jax.pretrained.weights import PublishedWeights

INDEX = ".index"
# Of the part number, of so many.
DATA = re.compile(r"\.data-\d{5}-of-(\d{5})$")
# TensorFlow's list of a directory's checkpoints names the last one.
STATE, LATEST = "checkpoint", re.compile(r'^model_checkpoint_path: "(.*)"$', re.MULTILINE)


def is_checkpoint(path: Path) -> bool:
    """Returns whether a file is part of a checkpoint, or one in TensorFlow's older, single file."""
    return path.suffix in (INDEX, ".ckpt") or DATA.search(path.name) is not None


def checkpoint_prefix(path: Path) -> Path:
    """Returns what the names of a checkpoint's files have in common, from any one of them."""
    return path.with_name(DATA.sub("", path.name.removesuffix(INDEX)))


def checkpoint_file(path: Path) -> Path | None:
    """Returns the file that identifies a checkpoint; None where a path means none.

    That is the file of its arrays, or the index, with their checksums, where they are in several.

    Args:
      path: a checkpoint's prefix, one of its files, or a directory with one checkpoint.

    Raises:
      DeepLabError: arrays are missing, or a directory holds several checkpoints.
    """
    prefix = _latest(path) if path.is_dir() else checkpoint_prefix(path)
    if prefix is None or not _index(prefix).is_file():
        if DATA.search(path.name):
            raise DeepLabError(f"{path} is nothing without {_index(prefix).name} beside it")
        return None
    parts = [part for part in prefix.parent.iterdir() if _belongs(part, prefix)]
    expected = int(DATA.search(parts[0].name)[1]) if parts else 1
    if len(parts) != expected:
        raise DeepLabError(
            f"{prefix} has {len(parts)} of its {expected} files {prefix.name}.data-…; "
            f"put them beside {_index(prefix).name}"
        )
    return parts[0] if expected == 1 else _index(prefix)


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + INDEX)


def _belongs(part: Path, prefix: Path) -> bool:
    return DATA.search(part.name) is not None and checkpoint_prefix(part) == prefix


def _latest(directory: Path) -> Path | None:
    """Returns the prefix of a directory's only checkpoint, or of the last one of a training run."""
    prefixes = sorted(checkpoint_prefix(index) for index in directory.glob(f"[!.]*{INDEX}"))
    state = directory / STATE
    if len(prefixes) > 1 and state.is_file():
        latest = LATEST.search(state.read_text("utf-8", errors="replace"))
        named = directory / Path(latest[1]).name if latest else None
        prefixes = [prefix for prefix in prefixes if prefix == named] or prefixes
    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes)
        raise DeepLabError(f"{directory} holds several checkpoints; give one of them: {names}")
    return prefixes[0] if prefixes else None


AVERAGE = "/ExponentialMovingAverage"
# Pattern of names that belong to no network → why they are left out.
IGNORED = {
    r"/(Momentum|Adam(_1)?|RMSProp(_1)?|Adagrad|Ftrl(_1)?)$": "it belongs to the optimiser",
    r"^beta[12]_power(_\d+)?$": "it belongs to the optimiser",
    r"/(biased|local_step|renorm_\w+)$": "training needs it to average, and nothing else does",
    r"(^|/)(global_)?step$": "it counts training steps",
}


class Choice(NamedTuple):
    """Which variables of a checkpoint are read.

    Attributes:
      stored: name in the checkpoint, by the name of the variable.
      ignored: why the others are not.
    """

    stored: Mapping[str, str]
    ignored: Mapping[str, str]


def read_checkpoint(path: Path, prefer_averages: bool = True) -> PublishedWeights:
    """Reads the variables of a TensorFlow checkpoint.

    Args:
      path: of any of its files.
      prefer_averages: a variable that was averaged over the training gets the average.

    Raises:
      DeepLabError: TensorFlow is missing, or nothing is left to read.
    """
    reader = import_tensorflow("tensorflow", "a TensorFlow file").train.load_checkpoint(
        str(checkpoint_prefix(path))
    )
    dtypes = reader.get_variable_to_dtype_map()
    choice = choose_variables(dtypes, prefer_averages)
    floating = {name: at for name, at in choice.stored.items() if dtypes[at].is_floating}
    if not floating:
        raise DeepLabError("it holds no variables")
    others = [at for at in choice.stored.values() if not dtypes[at].is_floating]
    return PublishedWeights(
        arrays={name: reader.get_tensor(stored) for name, stored in floating.items()},
        layout="tensorflow",
        ignored={**choice.ignored, **dict.fromkeys(others, "it holds no floating point numbers")},
        stored={name: at for name, at in floating.items() if name != at},
    )


def choose_variables(names: Iterable[str], prefer_averages: bool) -> Choice:
    """Returns which of a checkpoint's variables are the network's.

    Args:
      names: in the checkpoint.
      prefer_averages: see `read_checkpoint`.
    """
    stored, ignored = {}, {}
    averaged = {name.removesuffix(AVERAGE) for name in names if name.endswith(AVERAGE)}
    for name in sorted(names):
        variable = name.removesuffix(AVERAGE)
        is_average = variable != name
        reason = _reason(variable)
        if reason is None and variable in averaged and variable in names:
            if is_average and not prefer_averages:
                reason = "it is an average of a variable that was taken itself"
            if prefer_averages and not is_average:
                reason = "its moving average was taken"
        if reason is None:
            stored[variable] = name
        else:
            ignored[name] = reason
    return Choice(stored, ignored)


def _reason(name: str) -> str | None:
    return next((why for pattern, why in IGNORED.items() if re.search(pattern, name)), None)
