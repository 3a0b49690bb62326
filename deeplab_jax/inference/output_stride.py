"""A trained network at another output stride."""

import dataclasses
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture, DeepLab
from deeplab_jax.models.atrous_branches import rename_branches, rename_widths

STRIDES = (4, 8, 16, 32)
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


def rates_at(trained: Architecture, output_stride: int) -> tuple[int, ...]:
    """Returns the head's atrous rates at another output stride: their extent in pixels stays.

    Args:
      trained: the network, at its own output stride.
      output_stride: pixels of the image to one of the encoder's map.

    Raises:
      DeepLabError: they would be no whole numbers; says where they are.
    """
    rates = [_scaled(rate, trained, output_stride) for rate in trained.atrous_rates]
    whole = all(rate.denominator == 1 for rate in rates)
    # The cell's rates are whole from output stride 16 downwards.
    if trained.head == "dpc":
        whole = max(output_stride, trained.output_stride) < 32
    if not whole:
        shown = ", ".join(f"{float(rate):g}" for rate in rates) or "fractions"
        raise DeepLabError(
            f"at output stride {output_stride} the atrous rates of the {trained.head} head would "
            f"be {shown}; legal: {_legal(trained)}"
        )
    return tuple(map(int, rates))


def _scaled(rate: int, trained: Architecture, output_stride: int) -> Fraction:
    return Fraction(rate * trained.output_stride, output_stride)


def _legal(trained: Architecture) -> str:
    """Returns the output strides at which all rates are whole, as text."""
    if trained.head == "dpc":
        return ", ".join(map(str, STRIDES[:3] if trained.output_stride < 32 else STRIDES[3:]))
    legal = [
        stride
        for stride in STRIDES
        if all(_scaled(rate, trained, stride).denominator == 1 for rate in trained.atrous_rates)
    ]
    return ", ".join(map(str, legal))
