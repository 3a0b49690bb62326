"""Straightforward Flax implementation of DeepLab v3 and v3+ with MobileNetV2 and Xception-65.

This is a baseline; do not optimize it. It computes in float32, at output stride 16, with aligned
corners. It uses `nn.BatchNorm`, `nn.Conv` with `feature_group_count` for depthwise convolutions,
and bilinear resizing by `jnp.take`. `to_straightforward` converts the variables of deeplab_jax.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

# Inverted residuals of MobileNetV2: (channels, stride, expansion), from layer 2 on.
MOBILENET_LAYERS = (
    *((16, 1, 1), (24, 2, 6), (24, 1, 6), (32, 2, 6), (32, 1, 6), (32, 1, 6)),
    *((64, 2, 6), (64, 1, 6), (64, 1, 6), (64, 1, 6), (96, 1, 6), (96, 1, 6), (96, 1, 6)),
    *((160, 1, 6), (160, 1, 6), (160, 1, 6), (320, 1, 6)),
)
# At output stride 16, the stride of this layer is 1 instead of 2, and later layers have rate 2.
FIRST_ATROUS_LAYER = 15


class ConvNorm(nn.Module):
    features: int
    kernel_size: int = 3
    stride: int = 1
    rate: int = 1
    groups: int = 1
    activation: Callable | None = nn.relu
    decay: float = 0.9997
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            kernel_dilation=self.rate,
            feature_group_count=self.groups,
            padding="SAME",
            use_bias=False,
            name="conv",
        )(x)
        x = nn.BatchNorm(not train, momentum=self.decay, epsilon=self.epsilon, name="norm")(x)
        return x if self.activation is None else self.activation(x)


class InvertedResidual(nn.Module):
    features: int
    expansion: int
    stride: int
    rate: int
    residual: bool

    @nn.compact
    def __call__(self, x, train):
        y, width, common = x, x.shape[-1], {"activation": nn.relu6, "decay": 0.997}
        if self.expansion > 1:
            width *= self.expansion
            y = ConvNorm(width, 1, name="expand", **common)(y, train)
        y = depthwise = ConvNorm(
            width, 3, self.stride, self.rate, width, name="depthwise", **common
        )(y, train)
        y = ConvNorm(self.features, 1, activation=None, decay=0.997, name="project")(y, train)
        if self.residual and x.shape[-1] == self.features:
            y = y + x
        return y, depthwise


class MobileNetV2(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = ConvNorm(32, stride=2, activation=nn.relu6, decay=0.997, name="layer_1")(x, train)
        for number, (features, stride, expansion) in enumerate(MOBILENET_LAYERS, start=2):
            rate = 2 if number > FIRST_ATROUS_LAYER else 1
            residual = stride == 1 and number != FIRST_ATROUS_LAYER
            layer = InvertedResidual(
                features, expansion, stride, rate, residual, name=f"layer_{number}"
            )
            x, depthwise = layer(x, train)
            if number == 4:
                low_level = depthwise
        return x, low_level


class SeparableConv(nn.Module):
    features: int
    stride: int = 1
    rate: int = 1
    activation: Callable | None = nn.relu
    decay: float = 0.9997
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x, train):
        common = {"activation": self.activation, "decay": self.decay, "epsilon": self.epsilon}
        width = x.shape[-1]
        x = ConvNorm(width, 3, self.stride, self.rate, width, name="depthwise", **common)(x, train)
        return ConvNorm(self.features, 1, name="pointwise", **common)(x, train)


class XceptionModule(nn.Module):
    widths: tuple[int, int, int]
    stride: int = 1
    rate: int = 1
    shortcut: str = "identity"
    activation_inside: bool = False

    @nn.compact
    def __call__(self, x, train):
        y = x
        for number, width in enumerate(self.widths, start=1):
            y = SeparableConv(
                width,
                self.stride if number == 3 else 1,
                self.rate,
                nn.relu if self.activation_inside else None,
                name=f"separable_conv{number}",
            )(y if self.activation_inside else nn.relu(y), train)
            if number == 2:
                second = y
        if self.shortcut == "projection":
            width = self.widths[-1]
            x = ConvNorm(width, 1, self.stride, activation=None, name="shortcut")(x, train)
        return y if self.shortcut == "none" else y + x, second


class Xception65(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = ConvNorm(32, stride=2, name="entry_flow/conv1_1")(x, train)
        x = ConvNorm(64, name="entry_flow/conv1_2")(x, train)
        for number, width in enumerate((128, 256, 728), start=1):
            name = f"entry_flow/block{number}"
            x, second = XceptionModule((width,) * 3, 2, 1, "projection", name=name)(x, train)
            if number == 2:
                low_level = second
        for number in range(1, 17):
            x, _ = XceptionModule((728,) * 3, name=f"middle_flow/unit_{number}")(x, train)
        exit_1 = XceptionModule((728, 1024, 1024), shortcut="projection", name="exit_flow/block1")
        exit_2 = XceptionModule((1536, 1536, 2048), 1, 2, "none", True, name="exit_flow/block2")
        x, _ = exit_1(x, train)
        x, _ = exit_2(x, train)
        return x, low_level


class HeadConv(ConvNorm):
    epsilon: float = 1e-5


class ImagePooling(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        pooled = HeadConv(256, 1, name="conv")(jnp.mean(x, (1, 2), keepdims=True), train)
        return jnp.broadcast_to(pooled, (*x.shape[:3], 256))


class Aspp(nn.Module):
    separable: bool = False
    rates: tuple[int, ...] = (6, 12, 18)

    @nn.compact
    def __call__(self, x, train):
        branches = [
            ImagePooling(name="image_pooling")(x, train),
            HeadConv(256, 1, name="pointwise")(x, train),
        ]
        for rate in self.rates:
            name = f"rate_{rate}"
            if self.separable:
                branch = SeparableConv(256, 1, rate, epsilon=1e-5, name=name)
            else:
                branch = HeadConv(256, 3, rate=rate, name=name)
            branches.append(branch(x, train))
        return HeadConv(256, 1, name="projection")(jnp.concatenate(branches, -1), train)


class Decoder(nn.Module):
    separable: bool

    @nn.compact
    def __call__(self, x, low_level, train):
        low_level = HeadConv(48, 1, name="low_level")(low_level, train)
        x = jnp.concatenate([resize(x, low_level.shape[1:3]), low_level], -1)
        for number in (1, 2):
            name = f"refine_{number}"
            if self.separable:
                x = SeparableConv(256, epsilon=1e-5, name=name)(x, train)
            else:
                x = HeadConv(256, 3, name=name)(x, train)
        return x


class DeepLabV3Plus(nn.Module):
    """DeepLab v3+ with `backbone` mobilenet_v2 or xception_65; image sides must be 16·k + 1."""

    backbone: str
    num_classes: int = 21

    @nn.compact
    def __call__(self, image, train=False):
        separable = self.backbone == "xception_65"
        backbone = Xception65(name="backbone") if separable else MobileNetV2(name="backbone")
        x, low_level = backbone(image.astype(jnp.float32) * (2 / 255) - 1, train)
        x = Aspp(separable, name="aspp")(x, train)
        x = Decoder(separable, name="decoder")(x, low_level, train)
        x = nn.Conv(self.num_classes, (1, 1), name="classifier")(x)
        return resize(x, image.shape[1:3])


class DeepLabV3(nn.Module):
    """Published DeepLab v3 with MobileNetV2: image pooling, no atrous branches, no decoder."""

    num_classes: int = 21

    @nn.compact
    def __call__(self, image, train=False):
        x, _ = MobileNetV2(name="backbone")(image.astype(jnp.float32) * (2 / 255) - 1, train)
        x = Aspp(rates=(), name="pooling")(x, train)
        x = nn.Conv(self.num_classes, (1, 1), name="classifier")(x)
        return resize(x, image.shape[1:3])


def make_network(name: str, num_classes: int = 21) -> nn.Module:
    """Returns the network `v3/mobilenet_v2`, `v3plus/mobilenet_v2` or `v3plus/xception_65`."""
    version, backbone = name.split("/")
    return DeepLabV3(num_classes) if version == "v3" else DeepLabV3Plus(backbone, num_classes)


def resize(x, size):
    for axis, length in ((1, size[0]), (2, size[1])):
        position = jnp.linspace(0, x.shape[axis] - 1, length)
        low = jnp.clip(position.astype(jnp.int32), 0, x.shape[axis] - 2)
        shape = [-1 if a == axis else 1 for a in range(4)]
        share = (position - low).reshape(shape)
        below, above = jnp.take(x, low, axis), jnp.take(x, low + 1, axis)
        x = below * (1 - share) + above * share
    return x


def make_train_step(model: nn.Module, optimizer: optax.GradientTransformation) -> Callable:
    """Returns a jitted training step: (variables, state, batch) → (variables, state, loss).

    `state` is the state of the optimizer. `batch` contains `image`, [N, H, W, 3], and `label`,
    [N, H, W], where 255 is void.
    """

    def loss_of(params, batch_stats, batch):
        logits, changed = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch["image"],
            True,
            mutable=["batch_stats"],
        )
        known = batch["label"] != 255
        label = jnp.where(known, batch["label"], 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return jnp.sum(losses * known) / jnp.sum(known), changed["batch_stats"]

    def step(variables, state, batch):
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, stats), slopes = gradient(variables["params"], variables["batch_stats"], batch)
        updates, state = optimizer.update(slopes, state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": stats}, state, loss

    return jax.jit(step, donate_argnums=(0, 1))


def to_straightforward(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables of a deeplab_jax network, renamed for the networks of this module."""

    def params(tree: Mapping[str, Any]) -> dict[str, Any]:
        if "kernel" in tree and "norm" in tree:
            return {"conv": {"kernel": tree["kernel"]}, "norm": tree["norm"]}
        return {
            name: params(inner) if isinstance(inner, Mapping) else inner
            for name, inner in tree.items()
        }

    return {
        "params": params(variables["params"]),
        "batch_stats": variables["batch_stats"],
    }
