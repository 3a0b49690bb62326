"""Grids over config fields, such as `--grid model.output_stride=8,16`."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from deeplab_jax.cli.flags import parse_keywords
from deeplab_jax.config import FREE_FIELDS
from deeplab_jax.errors import DeepLabError
from experiments.table import Changes

# Config fields that `jobs.run_job` sets in every training run, and the flags with their values.
SET_BY_FLAGS = {"seed": "seeds", "data.data_dir": "data_dir"}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Grid over fields. A point of the grid is a combination of one value per field.

    Attributes:
      axes: pairs (field name, values of the field).
    """

    axes: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def points(self) -> list[Changes]:
        """Returns all points as {field: value}; a grid without axes has one point, {}."""
        names = [name for name, _ in self.axes]
        values = (values for _, values in self.axes)
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]


def parse_grid(texts: Sequence[str]) -> Grid:
    """Parses a grid from texts `FIELD=VALUE,VALUE,…`.

    Args:
      texts: one text per field. FIELD is a config field, or `inference.FIELD` for a field of
        `InferenceOptions`. Tuples are in brackets: model.atrous_rates=(3,6,9),(6,12,18).

    Raises:
      DeepLabError: a text is not FIELD=VALUE,VALUE,…, a field is repeated, another flag sets the
        field, or there are several values of a field that does not change the results.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        found = _split(values) if values else []
        if not (name and equals and found and all(part.strip() for part in found)):
            raise DeepLabError(
                f"--grid={text!r} must be FIELD=VALUE,VALUE, as in model.output_stride=8,16"
            )
        if name in axes:
            raise DeepLabError(f"--grid contains {name} twice; give all its values in one --grid")
        axes[name] = tuple(_value(name, part.strip()) for part in found)
        _check_axis(name, len(found))
    return Grid(tuple(axes.items()))


def _check_axis(name: str, count: int) -> None:
    """Checks that each of `count` values of a field leads to a different training run.

    The name of a training run's directory does not depend on the seed and on `FREE_FIELDS`. The
    results of several values would therefore be those of a single training run.
    """
    if name in SET_BY_FLAGS:
        flag = SET_BY_FLAGS[name]
        raise DeepLabError(
            f"--grid {name} has no effect, because --{flag} determines this field; give --{flag}"
        )
    if name in FREE_FIELDS and count > 1:
        raise DeepLabError(
            f"--grid {name} cannot have {count} values, because this field does not change the "
            "results, so all values would share one training run; give one value, and another "
            "--workdir for each further value"
        )


def _split(text: str) -> list[str]:
    """Splits a text at the commas that are not inside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(name: str, text: str) -> Any:
    """Parses a value of an inference field; returns a value of a config field unchanged, as text.

    `fields.set_field` parses the text when it sets the config field.
    """
    if not name.startswith("inference."):
        return text
    value = parse_keywords(f"value={text}")["value"]
    return (value,) if name == "inference.scales" and isinstance(value, int | float) else value


def shown(point: Changes) -> str:
    """Returns a label for {field: value}, such as `output_stride=8, multi_grid=(1, 2, 4)`."""
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in point.items())
