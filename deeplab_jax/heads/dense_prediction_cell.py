"""Dense prediction cell (DPC), found by architecture search (arXiv 1809.04184, figure 5)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.layers import ConvNorm, Form, Normalization, SeparableConvNorm


class Branch(NamedTuple):
    """Configuration of one branch, a separable 3×3 convolution.

    Attributes:
      source: index in BRANCHES of the branch whose output this branch receives; None: the branch
        receives the features of the backbone.
      rate: atrous rates (along h, along w) if the features have output stride 16.
    """

    source: int | None
    rate: tuple[int, int]


# As released for Xception-71, with rates at output stride 16.
BRANCHES = (
    Branch(None, (1, 6)),
    Branch(0, (18, 15)),
    Branch(1, (6, 3)),
    Branch(0, (1, 1)),
    Branch(0, (6, 21)),
)


class DensePredictionCell(nn.Module):
    """Dense prediction cell: five separable convolutions, concatenated and projected.

    The input of a convolution is the backbone's features or the output of an earlier convolution,
    as `BRANCHES` states.

    Attributes:
      channels: number of output channels of every branch and of the projection.
      output_stride: output stride of the features. The rates in `BRANCHES` are those for output
        stride 16. They are multiplied by 16 / `output_stride` and rounded down, to at least 1.
      dropout_rate: fraction of the concatenated features dropped in training.
      normalization: hyperparameters of batch normalization.
      form: settings common to all layers, see `layers.Form`.
    """

    channels: int
    output_stride: int
    dropout_rate: float
    normalization: Normalization
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] to [N, h, w, channels]."""
        outputs: list[jax.Array] = []
        for number, branch in enumerate(BRANCHES):
            inputs = features if branch.source is None else outputs[branch.source]
            down, across = (max(1, rate * 16 // self.output_stride) for rate in branch.rate)
            convolution = SeparableConvNorm(
                self.channels,
                self.normalization,
                rate=(down, across),
                form=self.form,
                name=f"branch_{number}",
            )
            outputs.append(convolution(inputs, train))
        joined = nn.Dropout(self.dropout_rate)(
            jnp.concatenate(outputs, axis=-1), deterministic=not train
        )
        return ConvNorm(
            self.channels, self.normalization, kernel_size=1, form=self.form, name="projection"
        )(joined, train)
