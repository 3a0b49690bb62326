"""Reader of TensorFlow checkpoints."""

import re
from collections.abc import Collection
from pathlib import Path

from deeplab_jax.errors import DeepLabError
from deeplab_jax.lazy import import_tensorflow
from deeplab_jax.pretrained.archives import DATA, index_of
from deeplab_jax.pretrained.weights import PublishedWeights


def checkpoint_file(prefix: Path) -> Path:
    """Returns the file of a checkpoint whose checksum identifies the checkpoint.

    The result is the data file or, if the checkpoint has several data files, the index file, which
    contains the checksums of all arrays.

    Raises:
      DeepLabError: data files are missing.
    """
    beside = (part for part in prefix.parent.iterdir() if DATA.search(part.name))
    parts = [part for part in beside if DATA.sub("", part.name) == prefix.name]
    count = DATA.search(parts[0].name) if parts else None
    expected = int(count[1]) if count else 1
    if len(parts) != expected:
        raise DeepLabError(
            f"{prefix}: only {len(parts)} of {expected} files {prefix.name}.data-… exist; put the "
            f"missing files beside {index_of(prefix).name}"
        )
    return parts[0] if expected == 1 else index_of(prefix)


AVERAGE = "/ExponentialMovingAverage"
# {pattern: reason} for variables that do not belong to the network.
IGNORED = {
    r"/(Momentum|Adam(_1)?|RMSProp(_1)?|Adagrad|Ftrl(_1)?)$": "it belongs to the optimizer",
    r"^beta[12]_power(_\d+)?$": "it belongs to the optimizer",
    r"/(biased|local_step|renorm_\w+)$": "only training requires it, for averaging",
    r"(^|/)(global_)?step$": "it counts training steps",
}


def read_checkpoint(path: Path, prefer_averages: bool = True) -> PublishedWeights:
    """Reads the variables of a TensorFlow checkpoint.

    Args:
      path: prefix of the files, or the single file of a checkpoint in the older format.
      prefer_averages: whether to read the moving average of a variable instead of the variable, if
        the checkpoint contains both.

    Raises:
      DeepLabError: TensorFlow is not installed, or there are no floating-point variables.
    """
    tensorflow = import_tensorflow("tensorflow", "a TensorFlow file")
    reader = tensorflow.train.load_checkpoint(str(path))
    dtypes = reader.get_variable_to_dtype_map()
    chosen, ignored = choose_variables(dtypes, prefer_averages)
    floating = {name: stored for name, stored in chosen.items() if dtypes[stored].is_floating}
    if not floating:
        raise DeepLabError("the file contains no floating-point variables")
    others = [stored for name, stored in chosen.items() if name not in floating]
    return PublishedWeights(
        arrays={name: reader.get_tensor(stored) for name, stored in floating.items()},
        layout="tensorflow",
        ignored=ignored | dict.fromkeys(others, "it contains no floating-point numbers"),
        stored={name: stored for name, stored in floating.items() if name != stored},
    )


def choose_variables(
    names: Collection[str], prefer_averages: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Selects the variables of the network among the names in a checkpoint.

    Args:
      names: all names in the checkpoint.
      prefer_averages: whether to select the moving average of a variable instead of the variable,
        if the checkpoint contains both.

    Returns:
      Two dicts: {name of the variable: its name in the checkpoint} for the selected variables, and
      {name in the checkpoint: reason for ignoring it} for all others.
    """
    stored, ignored = {}, {}
    for name in sorted(names):
        variable = name.removesuffix(AVERAGE)
        is_average = variable != name
        reasons = [why for pattern, why in IGNORED.items() if re.search(pattern, variable)]
        if is_average and variable in names and not prefer_averages:
            reasons.append("it is the moving average of a variable that was read")
        if prefer_averages and not is_average and name + AVERAGE in names:
            reasons.append("its moving average was read")
        if reasons:
            ignored[name] = reasons[0]
        else:
            stored[variable] = name
    return stored, ignored
