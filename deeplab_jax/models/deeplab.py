"""Flax module for all DeepLab versions, and folding of batch normalization."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from deeplab_jax import ops
from deeplab_jax.architecture import Architecture
from deeplab_jax.backbones import find_backbone
from deeplab_jax.errors import DeepLabError
from deeplab_jax.heads import AuxiliaryHead
from deeplab_jax.layers import Form, check_widths
from deeplab_jax.models import parts
from deeplab_jax.models.preprocessing import preprocess


def fold(model: "DeepLab", variables: Any) -> tuple["DeepLab", Any]:
    """Folds batch normalization into the kernels and biases of the convolutions.

    For inputs x and a kernel w, with s = scale/√(variance + ε):
    (x ∗ w − mean)·s + bias = x ∗ (w·s) + (bias − mean·s).

    Args:
      model: network.
      variables: `params` and `batch_stats` of the network.

    Returns:
      The folded network, which is only for inference, and its variables: `params` with NumPy
      arrays, without `batch_stats`. If the network is already folded or quantized, `model` and
      `variables` are returned unchanged.
    """
    if model.kind == "folded" or model.architecture.quantization != "none":
        return model, variables
    # Computed in NumPy, because compiling hundreds of small products would take longer.
    host = jax.device_get(variables)
    params = traverse_util.flatten_dict(host["params"])
    statistics = traverse_util.flatten_dict(host.get("batch_stats", {}))
    for path in {path[:-1] for path in statistics}:
        variance = statistics[(*path, "var")] + _epsilon(model.architecture, path[0])
        factor = params.pop((*path, "scale")) / np.sqrt(variance)
        kernel = (*path[:-1], "kernel")
        params[kernel] = params[kernel] * factor
        params[(*path, "bias")] = params[(*path, "bias")] - statistics[(*path, "mean")] * factor
    return model.clone(kind="folded"), {"params": traverse_util.unflatten_dict(params)}


def _epsilon(architecture: Architecture, part: str) -> float:
    if part == "backbone":
        return parts.backbone_normalization(architecture).epsilon
    return parts.HEAD_NORMALIZATION.epsilon


Maps = dict[str, jax.Array]


class DeepLab(nn.Module):
    """DeepLab network, which maps images to logits of the same height and width.

    Attributes:
      architecture: backbone, head, decoder and all other keywords.
      kind: `trained`, `folded` (see `fold`) or `rounded` (for quantization-aware training), see
        `layers.Form`. This attribute has no effect if the architecture is quantized.
      remat: gradient checkpointing, see `layers.Form`.
    """

    architecture: Architecture
    kind: str = "trained"
    remat: str = "none"

    @property
    def form(self) -> Form:
        """Settings common to all layers."""
        options = self.architecture
        kind = self.kind if options.quantization == "none" else options.quantization
        return Form(jnp.dtype(options.dtype), kind, options.widths, self.remat)

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        train: bool = False,
        endpoints: bool = False,
        dropout: bool = False,
    ) -> jax.Array | tuple[jax.Array, Maps]:
        """Returns the logits of every pixel.

        Args:
          image: [N, H, W, in_channels], integers or floating point; RGB 0..255 if `in_channels` is
            3 and `image_dtype` is uint8.
          train: whether to normalize by batch statistics, unless batch normalization is frozen,
            and to apply dropout, which requires the random stream `dropout`.
          endpoints: whether to also return a dictionary of feature maps:
            * the endpoints of the backbone by name;
            * `features`: input of the classifier; without a classifier, output of the backbone;
            * `scores`: logits at scale 1 before upsampling;
            * `scores_0.75` and similar: with `multi_scale`, logits at each other scale;
            * `fused_scores`: maximum of the scores over all scales;
            * `auxiliary_scores`: with `aux_head`, logits of the auxiliary head before upsampling;
            * `auxiliary`: with `aux_head`, the same after upsampling, [N, H, W, num_classes].
          dropout: whether to apply dropout without `train`, see `logits_with_dropout`.

        Returns:
          Logits [N, H, W, num_classes], in float64 if `architecture.dtype` is float64, else in
          float32. With `endpoints`, a pair (logits, dictionary of feature maps).

        Raises:
          DeepLabError: the image does not have the shape [N, H, W, in_channels];
            `architecture.widths` names a layer that does not exist or that cannot have the given
            number of channels; or `train` is set for a quantized or folded network.
        """
        if train and self.form.kind in ("folded", "int8"):
            kind = {"int8": "quantized"}.get(self.form.kind, "folded")
            raise DeepLabError(
                f"a {kind} network cannot be trained; train the original network instead"
            )
        logits, maps = ops.constrain_rows(self._logits(ops.constrain_rows(image), train, dropout))
        check_widths(self.form, self.variables["params"])
        return (logits, maps) if endpoints else logits

    def class_map(self, image: jax.Array) -> jax.Array:
        """Returns the most probable class of every pixel, the argmax of the logits.

        In compiled code on CPUs, the logits at full resolution are never in memory as a whole; see
        `ops.argmax_of_resized`.

        Args:
          image: [N, H, W, in_channels], integers or floating point, see `__call__`.

        Returns:
          int32 [N, H, W].
        """
        return self.class_map_and_logits(image)[0]

    def class_map_and_logits(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the class map and the logits; see `class_map`.

        Args:
          image: [N, H, W, in_channels], integers or floating point, see `__call__`.

        Returns:
          Class map, int32 [N, H, W], and logits [N, H, W, num_classes], see `__call__`.
        """
        logits, maps = self(image, endpoints=True)
        class_map = ops.argmax_of_resized(
            maps["fused_scores"],
            image.shape[1:3],
            align_corners=self.architecture.align_corners,
        )
        return class_map, logits

    def logits_with_dropout(self, image: jax.Array) -> jax.Array:
        """Returns logits with dropout in head and decoder (MC dropout).

        The network must be folded or quantized, because batch normalization in head and
        decoder would otherwise use the statistics of the batch. The random stream `dropout` is
        required.

        Args:
          image: [N, H, W, in_channels], integers or floating point, see `__call__`.

        Returns:
          Logits [N, H, W, num_classes], see `__call__`.

        Raises:
          DeepLabError: the network is neither folded nor quantized.
        """
        if self.form.kind not in ("folded", "int8"):
            raise DeepLabError("MC dropout requires a folded network; call models.fold first")
        logits, _ = self(image, endpoints=True, dropout=True)
        return logits

    def _logits(
        self, image: jax.Array, train: bool, dropout: bool = False
    ) -> tuple[jax.Array, Maps]:
        options = self.architecture
        if image.ndim != 4 or image.shape[-1] != options.in_channels:
            raise DeepLabError(
                f"images must have shape [N, H, W, {options.in_channels}], got {list(image.shape)}"
            )
        pixels = preprocess(
            image,
            options.preprocessing,
            jnp.dtype(options.dtype),
            image_dtype=options.image_dtype,
            mean=options.pixel_mean,
            std=options.pixel_std,
        )
        network = self._network(dropout)
        maps = network(pixels, train)
        for scale in options.multi_scale[1:]:
            maps[f"scores_{scale:g}"] = network(self._scaled(pixels, scale), train)["scores"]
        maps["fused_scores"] = self._fused_scores(maps)
        logits = self._resize(maps["fused_scores"], image)
        if options.aux_head:
            maps["auxiliary_scores"] = self._auxiliary(maps, train)
            maps["auxiliary"] = self._resize(maps["auxiliary_scores"], image)
        return logits, maps

    def _network(self, dropout: bool = False) -> Callable[[jax.Array, bool], Maps]:
        """Returns a function that computes the feature maps of a normalized image at one scale.

        The arguments of the returned function are the image and `train`, see `__call__`.

        Args:
          dropout: whether head and decoder apply dropout even if `train` is False.
        """
        options = self.architecture
        form = self.form
        backbone = parts.make_backbone(options, form)
        head, decoder = parts.make_head(options, form), parts.make_decoder(options, form)
        refine_encoder, refine = (
            parts.make_refinement(options, form, name) if getattr(options, name) else None
            for name in ("refine_encoder", "refine")
        )
        classifier = None if options.head_gives_scores else parts.make_classifier(options, form)

        def run(pixels: jax.Array, train: bool) -> Maps:
            maps = ops.constrain_rows(backbone(pixels, train))
            features = ops.constrain_rows(head(maps, train or dropout))
            if classifier is None:
                return maps | {"features": maps["output"], "scores": features}
            if refine_encoder is not None:
                features = refine_encoder(features, train)
            features = decoder(features, maps | {"image": pixels}, train or dropout)
            features = ops.constrain_rows(features)
            if refine is not None:
                features = refine(features, train)
            return maps | {"features": features, "scores": classifier(features)}

        return run

    def _scaled(self, pixels: jax.Array, scale: float) -> jax.Array:
        size = ops.scaled_size(pixels.shape[1:3], scale)
        align_corners = self.architecture.align_corners
        return ops.resize_bilinear(pixels, size, align_corners=align_corners)

    def _fused_scores(self, maps: Maps) -> jax.Array:
        """Returns the maximum of the scores over all scales, at the size of the map at scale 1."""
        fused = maps["scores"]
        for scale in self.architecture.multi_scale[1:]:
            fused = jnp.maximum(fused, self._resize(maps[f"scores_{scale:g}"], fused))
        return fused

    def _auxiliary(self, maps: Maps, train: bool) -> jax.Array:
        options = self.architecture
        source = find_backbone(options.backbone).auxiliary.name
        norm = parts.normalization(options, parts.HEAD_NORMALIZATION)
        head = AuxiliaryHead(options.num_classes, norm, self.form, name="auxiliary")
        return head(maps[source], train)

    def _resize(self, inputs: jax.Array, like: jax.Array) -> jax.Array:
        align_corners = self.architecture.align_corners
        return ops.resize_bilinear(inputs, like.shape[1:3], align_corners=align_corners)
