"""Lite reduced ASPP (LR-ASPP), the head of MobileNetV3 (arXiv 1905.02244, section 6.4)."""

import jax
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.heads.aspp import average
from deeplab_jax.layers import Classifier, ConvNorm, Convolution, Form, Normalization

# Distance between neighboring pooling windows of the gate (along H, along W), in image pixels.
WINDOW_STRIDE = (128, 160)


class LiteReducedASPP(nn.Module):
    """Lite reduced ASPP as released for MobileNetV3.

    The output of a 1×1 convolution is multiplied by a gate, which is computed from averages of the
    features over windows. Class scores of the product are upsampled and added to class scores of a
    low-level feature map.

    Attributes:
      num_classes: number of scores per pixel.
      channels: number of channels of the 1×1 convolution and of the gate.
      output_stride: output stride of the features. `WINDOW_STRIDE` divided by it is the distance
        between neighboring pooling windows in feature-map pixels.
      normalization: hyperparameters of batch normalization.
      window: height and width of the pooling windows, in feature-map pixels; None: the whole map.
      align_corners: whether bilinear resizing aligns corners, see `ops.resize_bilinear`.
      form: settings common to all layers, see `layers.Form`.
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
        """Computes class scores.

        Args:
          features: output of the backbone, [N, h, w, C].
          low_level: low-level features, finer than `features`, [N, h', w', L].
          train: whether to normalize by batch statistics.

        Returns:
          [N, h', w', num_classes].
        """
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
        # Resizing the scores is equivalent to resizing the features, and cheaper.
        return self._resize(coarse, low_level) + fine

    def _resize(self, inputs: jax.Array, like: jax.Array) -> jax.Array:
        return ops.resize_bilinear(inputs, like.shape[1:3], align_corners=self.align_corners)
