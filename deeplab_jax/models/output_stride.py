"""How a network follows its output stride: atrous rates, names of ASPP's branches, variables."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax.architecture import RATES_AT_16, Architecture
from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.models.deeplab import DeepLab

STRIDES = (4, 8, 16, 32)


class Published(NamedTuple):
    """Rates as they were published.

    Attributes:
      rates: in pixels of the encoder's map.
      output_stride: of that map.
    """

    rates: tuple[int, ...]
    output_stride: int


# DeepLab v2, section 4.1.2.
SUMMED_RATES = {"small": Published((2, 4, 8, 12), 8), "large": Published((6, 12, 18, 24), 8)}
# Of fc6: DeepLab v2, table 1; the smaller kernel's other rate is 8.
FC6_RATES = {
    "large": Published((12,), 8),
    "4x4": Published((4,), 8),
    "7x7": Published((4,), 8),
}
# DeepLab v3, section 3.3.
CONCATENATED_RATES = Published(RATES_AT_16, 16)


def published_rates(
    values: Mapping[str, Any], aspp: str | None, concatenated: Published
) -> Published:
    """Returns the rates that a network has by default, at the output stride of its paper.

    Args:
      values: keywords of `Architecture`, among them the head.
      aspp: name of DeepLab v2's rates, where one is given.
      concatenated: rates of an ASPP that concatenates.

    Raises:
      DeepLabError: `aspp` is unknown, or the head has no branches.
    """
    head, summed = values["head"], values.get("fusion") == "sum"
    if aspp is not None:
        if aspp not in SUMMED_RATES:
            raise unknown_name("aspp", str(aspp), SUMMED_RATES)
        if values.get("atrous_rates") is not None:
            raise DeepLabError(f"aspp={aspp!r} decides the rates; leave atrous_rates out, or aspp")
        if head != "aspp":
            raise DeepLabError(
                f"aspp={aspp!r} names rates of head='aspp', which head={head!r} does not read; "
                "leave aspp out, or give head='aspp'"
            )
        return SUMMED_RATES[aspp]
    if head == "large_fov":
        return FC6_RATES.get(values.get("fov", "large"), FC6_RATES["large"])
    if head == "aspp":
        return SUMMED_RATES["large"] if summed else concatenated
    return Published((), 16)


def rates_at(trained: Architecture, output_stride: int) -> tuple[int, ...]:
    """Returns the head's atrous rates at another output stride: their extent in pixels stays.

    Args:
      trained: the network, at its own output stride.
      output_stride: pixels of the image to one of the encoder's map.

    Raises:
      DeepLabError: they would be no whole numbers; says where they are.
    """
    published = Published(trained.atrous_rates, trained.output_stride)
    return scaled(published, output_stride, trained.head)


def scaled(published: Published, output_stride: int, head: str) -> tuple[int, ...]:
    """Returns rates of a head at another output stride than the one that they are given at.

    Raises:
      DeepLabError: as `rates_at`.
    """
    rates = _exact(published, output_stride)
    whole = all(rate.denominator == 1 for rate in rates)
    # The cell's rates are whole from output stride 16 downwards.
    if head == "dpc":
        whole = max(output_stride, published.output_stride) < 32
    if not whole:
        shown = ", ".join(f"{float(rate):g}" for rate in rates) or "fractions"
        raise DeepLabError(
            f"at output stride {output_stride} the atrous rates of the {head} head would "
            f"be {shown}; legal: {_legal(published, head)}"
        )
    return tuple(map(int, rates))


def _exact(published: Published, output_stride: int) -> list[Fraction]:
    ratio = Fraction(published.output_stride, output_stride)
    return [rate * ratio for rate in published.rates]


def _legal(published: Published, head: str) -> str:
    """Returns the output strides at which all rates are whole, as text."""
    if head == "dpc":
        return ", ".join(map(str, STRIDES[:3] if published.output_stride < 32 else STRIDES[3:]))
    legal = [
        stride
        for stride in STRIDES
        if all(rate.denominator == 1 for rate in _exact(published, stride))
    ]
    return ", ".join(map(str, legal))


Path = tuple[str, ...]
ASPP = "aspp"
BRANCH = re.compile(r"rate_(\d+)")


def branch_rates(paths: Iterable[Path]) -> list[int]:
    """Returns the rates of the branches among the paths of variables, in rising order."""
    found = {BRANCH.match(path[2]) for path in paths if path[1] == ASPP}
    return sorted({int(match[1]) for match in found if match})


def rename_branches(arrays: Mapping[Path, Any], rates: Mapping[int, int]) -> dict[Path, Any]:
    """Returns arrays under the names that their branches have at other rates.

    Args:
      arrays: by path, `params` or `batch_stats` first.
      rates: new rate of every branch by its old one.
    """

    def renamed(path: Path) -> Path:
        if path[1] != ASPP:
            return path
        branch = BRANCH.sub(lambda match: f"rate_{rates[int(match[1])]}", path[2], count=1)
        return (*path[:2], branch, *path[3:])

    return {renamed(path): array for path, array in arrays.items()}


def rename_widths(
    widths: tuple[tuple[str, int], ...], rates: Mapping[int, int]
) -> tuple[tuple[str, int], ...]:
    """Returns an architecture's widths under the names that branches have at other rates.

    Args:
      widths: (path, channels) of each layer.
      rates: new rate of every branch by its old one.
    """
    arrays = {("params", *path.split("/")): channels for path, channels in widths}
    return tuple(("/".join(path[1:]), n) for path, n in rename_branches(arrays, rates).items())


def at_rates_of(given: Mapping[Path, Any], wanted: Iterable[Path]) -> Mapping[Path, Any]:
    """Returns arrays under the names that their branches have at another output stride.

    A branch is named by its rate, and rates keep their extent in the image: all of them double when
    the output stride halves. Where rates differ in another way, they are other branches.

    Args:
      given: arrays by path, as trained.
      wanted: paths in the network to train.

    Source: DeepLab v3, section 3.3.
    """
    old, new = branch_rates(given), branch_rates(wanted)
    if len(old) != len(new) or len({Fraction(b, a) for a, b in zip(old, new, strict=True)}) != 1:
        return given
    return rename_branches(given, dict(zip(old, new, strict=True)))


# Small, and legal at every output stride.
PROBE_SIZE = (65, 65)


def at_output_stride(
    model: DeepLab, variables: Any, output_stride: int | None
) -> tuple[DeepLab, Any]:
    """Returns network and variables for another density of the encoder's map.

    Strides become rates in the backbone, the head's rates keep their extent in the image (they
    double when the output stride halves), and the window of image pooling follows. Weights and
    statistics stay as they are; only the names of branches that tell their rate change.

    Args:
      model: as trained.
      variables: of the model.
      output_stride: pixels of the image to one of the encoder's map; None: as trained.

    Raises:
      DeepLabError: the network cannot have this output stride; says why, and what is legal.

    Source: DeepLab v3, section 3.1 and table 10.
    """
    trained = model.architecture
    if output_stride in (None, trained.output_stride):
        return model, variables
    rates = rates_at(trained, output_stride)
    renamed = dict(zip(trained.atrous_rates, rates, strict=True))
    changed = dataclasses.replace(
        trained,
        output_stride=output_stride,
        atrous_rates=rates,
        widths=rename_widths(trained.widths, renamed),
    )
    flat = rename_branches(traverse_util.flatten_dict(variables), renamed)
    model, variables = model.clone(architecture=changed), traverse_util.unflatten_dict(flat)
    # What a backbone cannot do it says when it is traced.
    image = jax.ShapeDtypeStruct((1, *PROBE_SIZE, changed.in_channels), jnp.uint8)
    jax.eval_shape(lambda variables, image: model.apply(variables, image), variables, image)
    return model, variables
