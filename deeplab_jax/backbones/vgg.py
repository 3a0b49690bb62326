"""VGG-16 in the form of DeepLab v1 and v2, with 3×3 max pooling and a final average pooling."""

import jax
from flax import linen as nn

from deeplab_jax.backbones.atrous import Feature, strides_to_rates
from deeplab_jax.layers import Convolution, Form

# (channels, number of convolutions) before each pooling (arXiv 1409.1556, table 1, D).
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
LOW_LEVEL = (
    Feature("conv3_3", 256, 4),
    Feature("conv4_3", 512, 8),
    Feature("conv5_3", 512, 16),
)
# Inputs of DeepLab-MSc in addition to the image (DeepLab v1, section 4.3).
POOLED = (
    Feature("pool1", 64, 2),
    Feature("pool2", 128, 4),
    Feature("pool3", 256, 8),
    Feature("pool4", 512, 16),
)
WINDOW, PADDING = (3, 3), ((1, 1), (1, 1))


class VGG(nn.Module):
    """Convolutions and poolings of VGG-16 (DeepLab v1, section 3.1, and released prototxt).

    Strides beyond the output stride are replaced by atrous rates of the convolutions, but pooling
    windows are not dilated. Subsampling the features at output stride 8 by 2 therefore does not
    give the features at output stride 16.

    Attributes:
      output_stride: ratio of the image size to the size of the output: 4, 8, 16 or 32.
      form: settings common to all layers, see `layers.Form`.
    """

    output_stride: int = 8
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalized image [N, H, W, C] to endpoints by name; the last is `output`."""
        del train  # There is no normalization and no dropout.
        strides = [stride for _, count in BLOCKS for stride in (*[1] * count, 2)]
        walk = iter(strides_to_rates(strides, self.output_stride, "vgg_16"))
        hidden, endpoints = image.astype(self.form.dtype), {}
        for block, (channels, count) in enumerate(BLOCKS, start=1):
            for number in range(1, count + 1):
                name = f"conv{block}_{number}"
                convolution = Convolution(channels, rate=next(walk).rate, form=self.form, name=name)
                hidden = endpoints[name] = convolution(hidden)
            stride = next(walk).stride
            hidden = nn.max_pool(hidden, WINDOW, strides=(stride, stride), padding=PADDING)
            endpoints[f"pool{block}"] = hidden
        # The released networks end with average pooling, pool5a.
        hidden = nn.avg_pool(hidden, WINDOW, strides=(1, 1), padding=PADDING)
        return endpoints | {"output": hidden}
