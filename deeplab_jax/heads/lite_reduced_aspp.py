"""Lite reduced ASPP, the head of MobileNetV3 (arXiv 1905.02244, section 6.4; as released)."""

import jax
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.heads.aspp import average
from deeplab_jax.layers import Classifier, ConvNorm, Convolution, Form, Normalization

# Distance between the gate's averaging windows, in pixels of the image (rows, columns).
WINDOW_STRIDE = (128, 160)


class LiteReducedASPP(nn.Module):
    """A 1×1 branch gated by averages over windows; its scores are added to those of a finer map.

    Attributes:
      num_classes: number of scores per pixel.
      channels: output channels of the branch and of its gate.
      output_stride: output stride of the features.
      normalization: constants of batch normalization.
      window: rows and columns that the gate averages over; None averages the whole map.
      align_corners: convention of bilinear resizing.
      form: how the layers compute, see `layers.Form`.
    """

    num_classes: int
    channels: int
    output_stride: int
    normalization: Normalization
    window: tuple[int, int] | None = None
    align_corners: bool = True
    form: Form = Form()

    @nn.compact
    def __call__(self, features: jax.Array, low_level: jax.Array, train: bool) -> jax.Array:
        """Maps [N, h, w, C] and [N, h', w', L] to scores [N, h', w', num_classes]."""
        branch = ConvNorm(
            self.channels, self.normalization, kernel_size=1, form=self.form, name="pointwise"
        )(features, train)
        rows, columns = (max(1, pixels // self.output_stride) for pixels in WINDOW_STRIDE)
        pooled = average(features, self.window, (rows, columns))
        gate = Convolution(
            self.channels, 1, activation=nn.hard_sigmoid, form=self.form, name="gate"
        )(pooled.astype(self.form.dtype))
        branch = branch * self._resize(gate, features)
        coarse = Classifier(self.num_classes, form=self.form, name="classifier")(branch)
        fine = Classifier(self.num_classes, form=self.form, name="low_level_classifier")(low_level)
        # Resizing the scores gives the same result as resizing the features, at less cost.
        return self._resize(coarse, low_level) + fine

    def _resize(self, inputs: jax.Array, like: jax.Array) -> jax.Array:
        return ops.resize_bilinear(inputs, like.shape[1:3], align_corners=self.align_corners)
