"""TensorFlow's checkpoints: every variable of the network, without what training kept beside it."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.published import PublishedWeights
from deeplab_jax.pretrained.readers.checkpoint_files import checkpoint_prefix
from deeplab_jax.pretrained.readers.tensorflow_library import import_tensorflow

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
    reader = import_tensorflow().train.load_checkpoint(str(checkpoint_prefix(path)))
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
