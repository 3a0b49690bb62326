"""Grids over config fields, as `--grid model.output_stride=8,16` gives them."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from deeplab_jax.cli.flags import parse_keywords
from deeplab_jax.errors import DeepLabError
from experiments.table import Changes


@dataclasses.dataclass(frozen=True)
class Grid:
    """Values to try, by field; every combination is a point.

    Attributes:
      axes: (field, its values).
    """

    axes: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def points(self) -> list[Changes]:
        """Returns every combination; of no axis the one that changes nothing."""
        names = [name for name, _ in self.axes]
        values = (values for _, values in self.axes)
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]


def parse_grid(texts: Sequence[str]) -> Grid:
    """Returns the grid of `FIELD=VALUE,VALUE,…` texts.

    Args:
      texts: fields of the config, or `inference.FIELD` of `InferenceOptions`; tuples take
        brackets, as in model.atrous_rates=(3,6,9),(6,12,18).

    Raises:
      DeepLabError: a text is something else, or a field comes twice.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        found = _split(values) if values else []
        if not (name and equals and found and all(part.strip() for part in found)):
            raise DeepLabError(f"--grid={text!r} is not FIELD=VALUE,VALUE")
        if name in axes:
            raise DeepLabError(f"--grid names {name} twice; give all its values at once")
        axes[name] = tuple(_value(name, part.strip()) for part in found)
    return Grid(tuple(axes.items()))


def _split(text: str) -> list[str]:
    """Returns what stands between commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _value(name: str, text: str) -> Any:
    """For inference the value itself; for the config the text, which the field parses."""
    if not name.startswith("inference."):
        return text
    value = parse_keywords(f"value={text}")["value"]
    return (value,) if name == "inference.scales" and isinstance(value, int | float) else value


def shown(point: Changes) -> str:
    """Returns a point as a row's label."""
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in point.items())
