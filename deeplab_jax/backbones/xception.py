"""Aligned Xception: strided separable convolutions replace the max pooling (DeepLab v3+)."""

from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.backbones.atrous import Feature, Unit, strides_to_rates
from deeplab_jax.layers import ConvNorm, Form, Normalization, SeparableConvNorm

NORMALIZATION = Normalization(decay=0.9997, epsilon=1e-3)
KERNEL_INIT = nn.initializers.truncated_normal(0.09)


class Module(NamedTuple):
    """Configuration of one module in figure 4 of DeepLab v3+.

    A module has three separable convolutions and, except for the last module, a shortcut.

    Attributes:
      widths: number of output channels of each separable convolution.
      stride: stride of the third separable convolution.
      shortcut: `projection` (1×1), `identity` or `none`.
      activation_inside: True: a ReLU follows every depthwise and every pointwise convolution;
        False: a ReLU precedes every separable convolution.
    """

    widths: tuple[int, int, int]
    stride: int
    shortcut: str
    activation_inside: bool = False


def modules(depth: int) -> dict[str, Module]:
    """Returns the modules of Xception-41, 65 or 71 by name, from the first to the last."""
    entry = [(128, 2), (256, 2), (728, 2)]
    if depth == 71:
        entry = [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)]
    middle = Module((728, 728, 728), 1, "identity")
    return {
        **{
            f"entry_flow/block{number}": Module((width,) * 3, stride, "projection")
            for number, (width, stride) in enumerate(entry, start=1)
        },
        **{f"middle_flow/unit_{n}": middle for n in range(1, (8 if depth == 41 else 16) + 1)},
        "exit_flow/block1": Module((728, 1024, 1024), 2, "projection"),
        "exit_flow/block2": Module((1536, 1536, 2048), 1, "none", activation_inside=True),
    }


def low_level_features(depth: int) -> tuple[Feature, ...]:
    """Returns the endpoints that decoders can use as low-level features.

    The endpoints have strides 4, 8 and 16. Each endpoint is the output of the second separable
    convolution of a module, before the ReLU.

    Args:
      depth: depth of the backbone: 41, 65 or 71.
    """
    blocks = ("entry_flow/block3", "entry_flow/block5")
    if depth != 71:
        blocks = ("entry_flow/block2", "entry_flow/block3")
    channels = (256, 728, 1024)
    return tuple(
        Feature(f"{block}/separable_conv2", width, stride)
        for block, width, stride in zip(
            (*blocks, "exit_flow/block1"), channels, (4, 8, 16), strict=True
        )
    )


class XceptionModule(nn.Module):
    """Three separable convolutions, of which the third is strided, and a shortcut.

    Attributes:
      row: configuration of the module.
      unit: stride and atrous rate. The third separable convolution and the shortcut have this
        stride. All separable convolutions have this atrous rate.
      separable: constructor of `SeparableConvNorm` in which the arguments that the three separable
        convolutions share are already set.
      conv_norm: constructor of `ConvNorm` for the shortcut, in which common arguments are already
        set.
    """

    row: Module
    unit: Unit
    separable: partial[SeparableConvNorm]
    conv_norm: partial[ConvNorm]

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the output of the module, and the output of its second separable convolution."""
        hidden, outputs = inputs, []
        for number, width in enumerate(self.row.widths, start=1):
            if not self.row.activation_inside:
                hidden = nn.relu(hidden)
            hidden = self.separable(
                width,
                stride=self.unit.stride if number == 3 else 1,
                rate=self.unit.rate,
                activation=nn.relu if self.row.activation_inside else None,
                name=f"separable_conv{number}",
            )(hidden, train)
            outputs.append(hidden)
        if self.row.shortcut == "projection":
            hidden = hidden + self.conv_norm(
                self.row.widths[-1],
                kernel_size=1,
                stride=self.unit.stride,
                activation=None,
                name="shortcut",
            )(inputs, train)
        elif self.row.shortcut == "identity":
            hidden = hidden + inputs
        return ops.constrain_rows((hidden, outputs[1]))


class Xception(nn.Module):
    """Backbone Xception (DeepLab v3+, section 3.2 and figure 4).

    Strides and positions of the ReLUs are those of the released TensorFlow code.

    Attributes:
      depth: 41, 65 or 71.
      output_stride: ratio of the image size to the size of the last feature map: 4, 8, 16 or 32.
        Strides that would exceed this ratio are replaced by atrous rates.
      normalization: hyperparameters of batch normalization.
      form: settings common to all layers, see `layers.Form`.
    """

    depth: int
    output_stride: int = 16
    normalization: Normalization = NORMALIZATION
    form: Form = Form()

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps a normalized image [N, H, W, C] to endpoints by name; the last is `output`."""
        rows = modules(self.depth)
        walk = strides_to_rates(
            [2, 1, *(row.stride for row in rows.values())],
            self.output_stride,
            f"xception_{self.depth}",
        )
        conv_norm = partial(
            ConvNorm, kernel_init=KERNEL_INIT, normalization=self.normalization, form=self.form
        )
        separable = partial(
            SeparableConvNorm,
            depthwise_init=KERNEL_INIT,
            pointwise_init=KERNEL_INIT,
            normalization=self.normalization,
            form=self.form,
        )
        hidden = conv_norm(32, stride=walk[0].stride, name="entry_flow/conv1_1")(image, train)
        hidden = conv_norm(64, name="entry_flow/conv1_2")(hidden, train)
        endpoints = {"stem": hidden}
        make = self.form.block(XceptionModule)
        for (name, row), unit in zip(rows.items(), walk[2:], strict=True):
            module = make(row, unit, separable, conv_norm, name=name)
            hidden, endpoints[f"{name}/separable_conv2"] = module(hidden, train)
            endpoints[name] = hidden
        return endpoints | {"output": hidden}
