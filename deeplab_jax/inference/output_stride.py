"""A trained network at another output stride."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from deeplab_jax.models import DeepLab
from deeplab_jax.models.atrous_rates import rates_at, rename_branches, rename_widths

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
