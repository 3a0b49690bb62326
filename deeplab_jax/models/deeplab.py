"""DeepLab(backbone, head, decoder, classifier): every member of the family."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from deeplab_jax import ops
from deeplab_jax.backbones import find_backbone
from deeplab_jax.errors import DeepLabError
from deeplab_jax.heads import ASPP, Decoder
from deeplab_jax.layers import Classifier, Normalization
from deeplab_jax.models.architecture import Architecture
from deeplab_jax.models.preprocessing import preprocess

# Of heads and decoders in the released code.
HEAD_NORMALIZATION = Normalization(decay=0.9997, epsilon=1e-5)


class DeepLab(nn.Module):
    """A network from images to logits at the images' own resolution."""

    architecture: Architecture

    @nn.compact
    def __call__(
        self, image: jax.Array, train: bool = False, endpoints: bool = False
    ) -> jax.Array | tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the logits of every pixel.

        Args:
          image: [N, H, W, in_channels], RGB 0..255, uint8 or floating point.
          train: batch statistics and dropout (which needs the `dropout` random stream) are active.
          endpoints: also return the named inner maps.

        Returns:
          Logits [N, H, W, num_classes], float32; with `endpoints` a pair of these and a dict.

        Raises:
          DeepLabError: the image has another number of channels.
        """
        options = self.architecture
        if image.ndim != 4 or image.shape[-1] != options.in_channels:
            raise DeepLabError(
                f"images must be [N, H, W, {options.in_channels}], got {list(image.shape)}"
            )
        pixels = preprocess(image, options.preprocessing, jnp.dtype(options.dtype))
        maps = self._backbone()(pixels, train)
        features = self._encode(maps["output"], train)
        if options.decoder == "v3plus":
            features = self._decode(features, maps, train)
        scores = Classifier(options.num_classes, jnp.dtype(options.dtype), name="classifier")(
            features
        )
        logits = ops.resize_bilinear(scores, image.shape[1:3], align_corners=options.align_corners)
        return (logits, maps | {"features": features, "scores": scores}) if endpoints else logits

    def _backbone(self) -> nn.Module:
        options = self.architecture
        entry = find_backbone(options.backbone)
        given = {name: getattr(options, name) for name in entry.options}
        return entry.module(
            output_stride=options.output_stride,
            normalization=self._normalization(entry.normalization),
            dtype=jnp.dtype(options.dtype),
            name="backbone",
            **{name: value for name, value in given.items() if value is not None},
        )

    def _normalization(self, published: Normalization) -> Normalization:
        decay = self.architecture.batch_norm_decay
        return published if decay is None else Normalization(decay, published.epsilon)

    def _encode(self, features: jax.Array, train: bool) -> jax.Array:
        options = self.architecture
        if options.head == "plain":
            return features
        return ASPP(
            rates=options.atrous_rates if options.head == "aspp" else (),
            channels=options.aspp_channels,
            image_pooling=options.image_pooling == "global",
            separable=options.separable,
            dropout_rate=options.dropout_rate,
            normalization=self._normalization(HEAD_NORMALIZATION),
            align_corners=options.align_corners,
            dtype=jnp.dtype(options.dtype),
            name=options.head,
        )(features, train)

    def _decode(self, features: jax.Array, maps: dict[str, jax.Array], train: bool) -> jax.Array:
        options = self.architecture
        finest = find_backbone(options.backbone).low_level[0]
        return Decoder(
            low_level_channels=options.low_level_channels,
            convolutions=options.decoder_convs,
            separable=options.separable,
            normalization=self._normalization(HEAD_NORMALIZATION),
            align_corners=options.align_corners,
            dtype=jnp.dtype(options.dtype),
            name="decoder",
        )(features, maps[finest.name], train)
