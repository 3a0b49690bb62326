"""Builds the loss that training minimizes from the section `loss` of a config."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax import losses
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture

TERMS = ("cross_entropy", "focal", "dice", "lovasz")
# Fields that change only the cross-entropy, and their values without effect.
OF_CROSS_ENTROPY = {"class_weights": None, "label_smoothing": 0, "hard_pixel_fraction": 1}


class Outputs(NamedTuple):
    """Outputs of a network for a batch or a part of a batch.

    Attributes:
      logits: [N, H, W, C].
      maps: endpoints of the network by name, see `DeepLab.__call__`.
    """

    logits: jax.Array
    maps: Mapping[str, jax.Array]


# Loss function: (outputs, label of the same images, label of the whole batch, step) → scalar.
Objective = Callable[[Outputs, jax.Array, jax.Array, jax.Array], jax.Array]


def make_objective(config: ConfigDict, architecture: Architecture) -> Objective:
    """Returns the loss function that a config specifies.

    Args:
      config: section `loss` of the config; see deeplab_jax/optimization_fields.py.
      architecture: architecture of the network whose outputs the loss function receives.

    Raises:
      DeepLabError: a field is invalid, contradicts another field, or does not fit the network.
    """
    check_loss(config, architecture)
    loss = _all_scales if config.supervise_all_scales else _one_scale
    objective = partial(loss, config, architecture)
    return _mean_of_images(objective) if config.normalization == "images" else objective


def _mean_of_images(objective: Objective) -> Objective:
    """Returns a loss that is computed for each image and averaged over the batch.

    The loss of an image without valid pixels is 0.
    """

    def averaged(
        outputs: Outputs, label: jax.Array, batch_label: jax.Array, step: jax.Array
    ) -> jax.Array:
        def of_image(*image: Any) -> jax.Array:
            outputs, label = jax.tree.map(lambda array: array[None], image)
            return objective(outputs, label, label, step)

        return jnp.sum(jax.vmap(of_image)(outputs, label)) / batch_label.shape[0]

    return averaged


def _one_scale(
    config: ConfigDict,
    architecture: Architecture,
    outputs: Outputs,
    label: jax.Array,
    batch_label: jax.Array,
    step: jax.Array,
) -> jax.Array:
    """Computes the weighted sum of the losses that a config selects.

    The losses are computed on the logits or, if `upsample_logits` is False, on the scores before
    upsampling. If `chunk_rows` is set, the cross-entropy receives
    these scores, and upsamples them in chunks of rows.
    """
    loss, maps = losses.weighted_sum(*_terms(config, architecture, step)), outputs.maps
    if config.upsample_logits and not config.chunk_rows:
        pair = outputs.logits, maps.get("auxiliary")
    else:
        pair = maps["fused_scores"], maps.get("auxiliary_scores")
    if not config.upsample_logits:
        loss = _of_scores(loss, batch_label, architecture.align_corners)
    normalizer = losses.num_valid_pixels(batch_label, architecture.num_classes)
    return losses.with_auxiliary(loss, *pair, label, normalizer, weight=config.auxiliary_weight)


def _of_scores(loss: losses.Loss, batch_label: jax.Array, align_corners: bool) -> losses.Loss:
    """Returns a loss function that downsamples the label to the size of low-resolution scores.

    `align_corners` is that of the network, so that a pixel of the scores has the label of its
    center.

    The loss is normalized by the number of valid pixels in the downsampled label of the whole
    batch. This number depends on the size of the scores, so the returned function ignores its
    argument `normalizer`.
    """

    def shrunk(
        scores: jax.Array, label: jax.Array, normalizer: jax.Array | None = None
    ) -> jax.Array:
        del normalizer
        shrink = partial(losses.shrink_labels, size=scores.shape[1:3], align_corners=align_corners)
        known = losses.num_valid_pixels(shrink(batch_label), scores.shape[-1])
        return loss(scores, shrink(label), known)

    return shrunk


def _weighted(config: ConfigDict) -> dict[str, Any]:
    return {"class_weights": config.class_weights, "label_smoothing": config.label_smoothing}


def _terms(
    config: ConfigDict, architecture: Architecture, step: jax.Array
) -> list[tuple[float, losses.Loss]]:
    """Returns a pair (weight, loss function) for each loss with a nonzero weight."""
    if config.chunk_rows:
        resized = {"rows": config.chunk_rows, "align_corners": architecture.align_corners}
        cross_entropy = partial(losses.resized_cross_entropy, **resized, **_weighted(config))
    elif config.hard_pixel_fraction < 1:
        fraction = losses.hard_pixel_fraction(
            step, config.hard_pixel_fraction, config.hard_pixel_anneal_steps
        )
        cross_entropy = partial(
            losses.hard_pixel_cross_entropy, fraction=fraction, **_weighted(config)
        )
    else:
        cross_entropy = partial(losses.softmax_cross_entropy, **_weighted(config))
    found: dict[str, losses.Loss] = {
        "cross_entropy": cross_entropy,
        "focal": partial(losses.focal_loss, gamma=config.focal_gamma),
        "dice": losses.dice_loss,
        "lovasz": losses.lovasz_softmax,
    }
    return [(config[name], found[name]) for name in TERMS if config[name]]


def _all_scales(
    config: ConfigDict,
    architecture: Architecture,
    outputs: Outputs,
    label: jax.Array,
    batch_label: jax.Array,
    step: jax.Array,
) -> jax.Array:
    """Computes the weighted sum of the cross-entropies of a network applied at several scales.

    The terms are the cross-entropies of the scores at each scale, of the fused scores and, with
    weight `config.auxiliary_weight`, of the auxiliary scores. The sum is multiplied by
    `config.cross_entropy`.
    """
    del step
    weighted, maps = _weighted(config), outputs.maps
    total = losses.multi_scale_cross_entropy(
        maps, label, batch_label, align_corners=architecture.align_corners, **weighted
    )
    auxiliary = maps.get("auxiliary_scores")
    if auxiliary is not None:
        cross_entropy = partial(losses.softmax_cross_entropy, **weighted)
        loss = _of_scores(cross_entropy, batch_label, architecture.align_corners)
        total += config.auxiliary_weight * loss(auxiliary, label, None)
    return config.cross_entropy * total


def check_loss(config: ConfigDict, architecture: Architecture) -> None:
    """Checks the section `loss` of a config.

    Raises:
      DeepLabError: a field is invalid, contradicts another field, or does not fit the network.
    """
    configs.check(config, "loss.")
    weights: dict[str, Any] = {name: config[name] for name in TERMS}
    if not any(weights.values()):
        raise DeepLabError(f"one of the loss weights must be above 0; got {weights}")
    for name, neutral in OF_CROSS_ENTROPY.items():
        if not config.cross_entropy and config[name] != neutral:
            raise DeepLabError(
                f"loss.{name} applies only to the cross-entropy, so it has no effect with "
                f"loss.cross_entropy=0; set loss.{name}={neutral}, or loss.cross_entropy above 0"
            )
    pure = config.hard_pixel_fraction == 1 and not any(config[name] for name in TERMS[1:])
    if config.chunk_rows and not (config.upsample_logits and pure):
        raise DeepLabError(
            f"loss.chunk_rows={config.chunk_rows} requires cross-entropy over all pixels as the "
            "only loss, and loss.upsample_logits=True; otherwise set loss.chunk_rows=0"
        )
    if not config.supervise_all_scales:
        return
    if not architecture.multi_scale:
        raise DeepLabError(
            "loss.supervise_all_scales requires model.multi_scale, such as (1, 0.75, 0.5)"
        )
    if config.upsample_logits or not pure:
        raise DeepLabError(
            "loss.supervise_all_scales requires cross-entropy over all pixels as the only loss "
            "and loss.upsample_logits=False (DeepLab v2)"
        )
