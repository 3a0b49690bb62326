"""Converts a trained network to another output stride.

Its atrous rates are scaled, and the variables whose names contain atrous rates are renamed.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax.architecture import Architecture
from deeplab_jax.architecture_fields import RATES_AT_16
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.models.deeplab import DeepLab

STRIDES = (4, 8, 16, 32)


class Published(NamedTuple):
    """Atrous rates of a head at one output stride, for example as published.

    Attributes:
      rates: atrous rates, in pixels of the encoder output.
      output_stride: output stride of the encoder.
    """

    rates: tuple[int, ...]
    output_stride: int


# DeepLab v2, section 4.1.2.
SUMMED_RATES = {"small": Published((2, 4, 8, 12), 8), "large": Published((6, 12, 18, 24), 8)}
# Rates of fc6 by `fov` (DeepLab v2, table 1; 4x4 was also published with rate 8).
FC6_RATES = {
    "large": Published((12,), 8),
    "4x4": Published((4,), 8),
    "7x7": Published((4,), 8),
}
# DeepLab v3, section 3.3.
CONCATENATED_RATES = Published(RATES_AT_16, 16)


def default_aspp_rates(output_stride: int) -> tuple[int, ...]:
    """Returns the default ASPP rates: (6, 12, 18) at output stride 16, (12, 24, 36) at 8."""
    return tuple(rate * 16 // output_stride for rate in RATES_AT_16)


def published_rates(
    values: Mapping[str, Any], aspp: str | None, concatenated: Published
) -> Published:
    """Returns the published atrous rates of a head, and the output stride that they belong to.

    For heads other than `aspp` and `large_fov`, the tuple of rates is empty.

    Args:
      values: keywords of `Architecture`, including `head`.
      aspp: `small` or `large`: the rates of DeepLab v2 with this name; None: the default rates of
        the head.
      concatenated: default for ASPP with `fusion='concat'`, which depends on the architecture.

    Raises:
      DeepLabError: `aspp` is unknown, or is given together with `atrous_rates` or a head other
        than `aspp`.
    """
    head, summed = values["head"], values.get("fusion") == "sum"
    if aspp is not None:
        check_name("aspp", str(aspp), SUMMED_RATES)
        if values.get("atrous_rates") is not None:
            raise DeepLabError(
                f"aspp={aspp!r} determines the atrous rates, so aspp and atrous_rates cannot be "
                "given together; omit atrous_rates or aspp"
            )
        if head != "aspp":
            raise DeepLabError(
                f"aspp={aspp!r} requires head='aspp', but head={head!r}; omit aspp, or use "
                "head='aspp'"
            )
        return SUMMED_RATES[aspp]
    if head == "large_fov":
        return FC6_RATES.get(values.get("fov", "large"), FC6_RATES["large"])
    if head == "aspp":
        return SUMMED_RATES["large"] if summed else concatenated
    return Published((), 16)


def rates_at_output_stride(trained: Architecture, output_stride: int) -> tuple[int, ...]:
    """Returns the atrous rates of a head after a change of the output stride.

    The rates are scaled so that the kernels cover the same part of the image as before.

    Args:
      trained: architecture before the change.
      output_stride: output stride after the change.

    Raises:
      DeepLabError: the rates would not be integers; the message lists the legal output strides.
    """
    published = Published(trained.atrous_rates, trained.output_stride)
    return rescaled(published, output_stride, trained.head)


def rescaled(published: Published, output_stride: int, head: str) -> tuple[int, ...]:
    """Returns atrous rates that are scaled to another output stride.

    Args:
      published: rates to scale, and the output stride that they belong to.
      output_stride: output stride of the result.
      head: name of the head.

    Raises:
      DeepLabError: the rates would not be integers; the message lists the legal output strides.
    """
    rates = _exact(published, output_stride)
    whole = all(rate.denominator == 1 for rate in rates)
    # The rates of the dense prediction cell are integers at output strides up to 16.
    if head == "dpc":
        whole = max(output_stride, published.output_stride) < 32
    if not whole:
        shown = ", ".join(f"{float(rate):g}" for rate in rates) or "fractions"
        raise DeepLabError(
            f"at output_stride={output_stride} the atrous rates of the {head} head, which must be "
            f"integers, would be {shown}; legal output strides: {_legal(published, head)}"
        )
    return tuple(map(int, rates))


def _exact(published: Published, output_stride: int) -> list[Fraction]:
    ratio = Fraction(published.output_stride, output_stride)
    return [rate * ratio for rate in published.rates]


def _legal(published: Published, head: str) -> str:
    """Lists, separated by commas, the output strides at which all rates of a head are integers."""
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
    """Returns the rates in the names of ASPP branches (`rate_6`, …), in ascending order."""
    found = {BRANCH.match(path[2]) for path in paths if path[1] == ASPP}
    return sorted({int(match[1]) for match in found if match})


def rename_branches(arrays: Mapping[Path, Any], rates: Mapping[int, int]) -> dict[Path, Any]:
    """Replaces the atrous rates in the names of ASPP branches, such as `rate_6`, by new rates.

    Args:
      arrays: arrays of the network by path; each path begins with `params` or `batch_stats`.
      rates: new rate of each branch by its old rate.

    Returns:
      All arrays, by renamed path.
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
    """Returns `Architecture.widths` with new atrous rates in the names of ASPP branches.

    Args:
      widths: value of `Architecture.widths`, pairs (layer path, number of output channels).
      rates: new rate of each branch by its old rate.
    """
    arrays = {("params", *path.split("/")): channels for path, channels in widths}
    return tuple(("/".join(path[1:]), n) for path, n in rename_branches(arrays, rates).items())


def rename_branches_to_match(
    given: Mapping[Path, Any], wanted: Iterable[Path]
) -> Mapping[Path, Any]:
    """Renames the ASPP branches of a trained network to the names in a target network.

    The two networks may differ in the output stride. The name of a branch contains its atrous rate,
    such as `rate_6`, and all rates double when the output stride halves. Nothing is renamed if the
    numbers of branches differ, or if the rates of the two networks are not in proportion.

    Args:
      given: arrays of the trained network by path.
      wanted: paths of the variables in the target network.

    Returns:
      The arrays in `given`, by renamed path.

    Source: DeepLab v3, section 3.3.
    """
    old, new = branch_rates(given), branch_rates(wanted)
    if len(old) != len(new) or len({Fraction(b, a) for a, b in zip(old, new, strict=True)}) != 1:
        return given
    return rename_branches(given, dict(zip(old, new, strict=True)))


# (H, W) of a small image that every network accepts at every output stride.
PROBE_SIZE = (65, 65)


def at_output_stride(
    model: DeepLab, variables: Any, output_stride: int | None
) -> tuple[DeepLab, Any]:
    """Converts a trained network and its variables to another output stride.

    In the backbone, strides are replaced by atrous rates, or atrous rates by strides. In the head,
    the atrous rates and the window of image pooling double when the output stride halves. The
    values of all variables are unchanged. The names of ASPP branches contain the new rates.

    Args:
      model: trained network.
      variables: variables of the network.
      output_stride: output stride of the result; None: that of `model`.

    Raises:
      DeepLabError: the network does not support the output stride; the message states the reason
        and the legal output strides.

    Source: DeepLab v3, section 3.1 and table 10.
    """
    trained = model.architecture
    if output_stride in (None, trained.output_stride):
        return model, variables
    # This call checks that the output stride is legal.
    changed = dataclasses.replace(trained, output_stride=output_stride)
    rates = rates_at_output_stride(trained, output_stride)
    renamed = dict(zip(trained.atrous_rates, rates, strict=True))
    widths = rename_widths(trained.widths, renamed)
    changed = dataclasses.replace(changed, atrous_rates=rates, widths=widths)
    flat = rename_branches(traverse_util.flatten_dict(variables), renamed)
    model, variables = model.clone(architecture=changed), traverse_util.unflatten_dict(flat)
    # Tracing the network raises an error if the backbone does not support the output stride.
    image = jax.ShapeDtypeStruct((1, *PROBE_SIZE, changed.in_channels), jnp.uint8)
    jax.eval_shape(lambda variables, image: model.apply(variables, image), variables, image)
    return model, variables
