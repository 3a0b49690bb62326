"""Image classifiers. ImageNet weights of backbones are published as weights of such networks."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax.architecture import Architecture
from deeplab_jax.backbones import find_backbone
from deeplab_jax.backbones.entries import Wide
from deeplab_jax.errors import DeepLabError
from deeplab_jax.formats import with_new_keywords
from deeplab_jax.layers import Classifier, ConvNorm, Convolution, Form, LayerNorm
from deeplab_jax.models import parts
from deeplab_jax.models.architectures import frozen, resolve, resolve_stored
from deeplab_jax.models.preprocessing import preprocess

DROPOUT_RATE = 0.2
FIXED = {"head": "plain", "output_stride": 32}
# Keywords that an image classifier uses in addition to the options of its backbone.
READ = (
    *("backbone", "num_classes", "in_channels", "preprocessing", "dtype"),
    *("batch_norm_decay", "batch_norm_epsilon", "ghost_batch_size", "frozen_batch_norm"),
)


class ImageClassifier(nn.Module):
    """Image classifier: backbone at output stride 32 → global average → logits.

    MobileNetV2 (arXiv 1801.04381, table 2) and EfficientNet have an additional 1×1 convolution
    before the average. MobileNetV3 (arXiv 1905.02244, tables 1 and 2) and MobileNetV4 have it after
    the average. ConvNeXt has a layer normalization after the average (arXiv 2201.03545).

    Attributes:
      architecture: backbone, number of classes and other options. The options of head and decoder
        are not used.
    """

    architecture: Architecture

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [N, H, W, in_channels], with values 0..255, to logits [N, num_classes]."""
        options, form = self.architecture, self.form
        entry = find_backbone(options.backbone)
        backbone = parts.make_backbone(options, form)
        features = backbone(preprocess(image, options.preprocessing, form.dtype), train)["output"]
        if entry.wide and entry.wide.place == "before":
            features = self._widened(features, entry.wide, train)
        accurate = features.astype(form.parameter_dtype)
        pooled = jnp.mean(accurate, (1, 2), keepdims=True).astype(form.dtype)
        if entry.pooled_norm:
            pooled = LayerNorm(form=form, name="pooled_norm")(pooled)
        if entry.wide and entry.wide.place == "after":
            pooled = self._widened(pooled, entry.wide, train)
        pooled = nn.Dropout(DROPOUT_RATE)(pooled, deterministic=not train)
        return Classifier(options.num_classes, form=form, name="classifier")(pooled)[:, 0, 0]

    @property
    def form(self) -> Form:
        """Settings common to all layers."""
        return Form(jnp.dtype(self.architecture.dtype))

    def _widened(self, features: jax.Array, wide: Wide, train: bool) -> jax.Array:
        if wide.has_bias:
            return Convolution(
                wide.channels, 1, activation=wide.activation, form=self.form, name=wide.name
            )(features)
        return ConvNorm(
            # A depth multiplier below 1 does not apply to this layer.
            int(wide.channels * max(1.0, self.architecture.depth_multiplier)),
            parts.backbone_normalization(self.architecture),
            kernel_size=1,
            activation=wide.activation,
            form=self.form,
            name=wide.name,
        )(features, train)


def create_classifier(backbone: str, **overrides: Any) -> ImageClassifier:
    """Returns an image classifier with a given backbone.

    Args:
      backbone: name of the backbone, a key of `backbones.BACKBONES`.
      **overrides: `num_classes`, and other fields of `Architecture` that apply to the backbone.

    Raises:
      DeepLabError: a name, keyword or value is invalid, or a keyword applies to heads or decoders.
    """
    _check_keywords(backbone, overrides)
    return ImageClassifier(resolve("deeplab_v3", backbone=backbone, **(overrides | FIXED)))


def restore_classifier(overrides: Mapping[str, Any], version: int) -> ImageClassifier:
    """Returns the image classifier that a model file describes.

    Args:
      overrides: keywords of `create_classifier` that the file stores. Their names depend on
        `version`.
      version: format version of the file.
    """
    if version > 1:
        return create_classifier(**with_new_keywords(overrides, version))
    return ImageClassifier(resolve_stored("deeplab_v3", {**overrides, **FIXED}, version))


def _check_keywords(backbone: str, overrides: Mapping[str, Any]) -> None:
    own = resolve("deeplab_v3", backbone=backbone, **FIXED).describe()
    legal = {*READ, *find_backbone(backbone).options}
    wrong = [
        f"{name}={value!r} (legal here: {own[name]!r})"
        for name, value in overrides.items()
        if name in own and name not in legal and frozen(value) != own[name]
    ]
    if wrong:
        raise DeepLabError(
            f"an image classifier does not support {', '.join(wrong)}; omit keywords of heads and "
            f"decoders. Legal keywords: {', '.join(sorted(legal))}"
        )
