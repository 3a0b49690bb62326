"""Compares multiply-adds with published values: `python -m experiments.multiply_adds`.

multiply_adds.csv contains the published values. Multiply-adds of several scales are summed, and
flips double the sum. The values of the papers and the DeepLab model zoo are compared with
`ModelSummary.macs_tf_convention`, those of torchvision with `ModelSummary.macs`.
"""

import csv
import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import rich.box
import rich.console
import rich.table

from deeplab_jax.cli.flags import parse_keywords
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model
from deeplab_jax.models.summary import ModelSummary, summarize
from deeplab_jax.ops import scaled_size

PUBLISHED = pathlib.Path(__file__).with_name("multiply_adds.csv")
CONVENTIONS = {"tensorflow": "macs_tf_convention", "plain": "macs"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Published and counted multiply-adds of a network.

    Attributes:
      published: published number in billions.
      ours: number in billions that this package counts; None if the network is not supported.
      agrees: whether the two numbers agree within the tolerance that multiply_adds.csv states.
    """

    published: float
    ours: float | None
    agrees: bool

    @property
    def difference(self) -> float | None:
        """(ours − published) / published, or None if the network is not supported."""
        return None if self.ours is None else self.ours / self.published - 1


def read_published() -> list[dict[str, str]]:
    """Returns the rows of multiply_adds.csv as dictionaries."""
    with PUBLISHED.open(newline="") as file:
        return list(csv.DictReader(file))


def compare(row: Mapping[str, str]) -> Comparison:
    """Compares the published number in a row of multiply_adds.csv with the counted number."""
    published = float(row["published_billions"])
    try:
        ours = sum(
            getattr(_summary(row["architecture"], row["keywords"], size), _counted(row)) / 1e9
            for size in _sizes(row)
        )
    except DeepLabError:
        return Comparison(published, None, False)
    ours *= 2 if row["flip"] == "yes" else 1
    return Comparison(published, ours, _agree(ours, row["published_billions"], row["tolerance"]))


@functools.cache
def _summary(architecture: str, keywords: str, size: tuple[int, int]) -> ModelSummary:
    return summarize(create_model(architecture, **parse_keywords(keywords, ";")), size)


def _counted(row: Mapping[str, str]) -> str:
    return CONVENTIONS[row["convention"]]


def _sizes(row: Mapping[str, str]) -> list[tuple[int, int]]:
    """Returns the size (H, W) of the image at every scale, rounded as in the DeepLab code."""
    height, width = map(int, row["crop"].split("x"))
    return [scaled_size((height, width), float(scale)) for scale in row["scales"].split()]


def _agree(ours: float, published: str, tolerance: str) -> bool:
    """Returns whether the counted number `ours` agrees with `published`; both are in billions.

    The tolerance `exact` requires equality after rounding to the digits of `published`. Other
    tolerances are a percentage of `published`, such as `0.35%`, or a difference in billions, such
    as `0.025`. If `tolerance` states both, separated by `|`, the larger one applies.
    """
    difference = abs(ours - float(published))
    if tolerance == "exact":
        digits = len(published.partition(".")[2])
        return f"{ours:.{digits}f}" == published
    limits = (
        float(limit[:-1]) / 100 * float(published) if limit.endswith("%") else float(limit)
        for limit in tolerance.split("|")
    )
    return difference <= max(limits)


def table() -> rich.table.Table:
    """Returns a table of the published and counted numbers and their relative differences."""
    result = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for title in ("source", "network", "crop", "scales"):
        result.add_column(title)
    for title in ("published", "ours", "difference"):
        result.add_column(title, justify="right", no_wrap=True)
    for row in read_published():
        scales = row["scales"] + (" flip" if row["flip"] == "yes" else "")
        network = f"{row['architecture']} {row['keywords'].replace(';', ' ')}"
        source = f"{row['source']}, {row['table']}"
        result.add_row(source, network, row["crop"], scales, *_cells(row))
    return result


def _cells(row: Mapping[str, str]) -> tuple[str, str, str]:
    found = compare(row)
    if found.ours is None:
        return row["published_billions"], "–", "not supported"
    mark = "" if found.agrees else " ✗" if row["checked"] == "yes" else " (unchecked)"
    return row["published_billions"], f"{found.ours:.3f}", f"{found.difference:+.2%}{mark}"


if __name__ == "__main__":
    rich.console.Console(highlight=False).print(table())
