"""The loss that training minimizes, from its config."""

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


class Outputs(NamedTuple):
    """Outputs of a network for a batch or a part of it.

    Attributes:
      logits: [N, H, W, C].
      maps: endpoints of the network by name.
    """

    logits: jax.Array
    maps: Mapping[str, jax.Array]


# (outputs, their label, label of the whole batch, step) → scalar.
Objective = Callable[[Outputs, jax.Array, jax.Array, jax.Array], jax.Array]


def make_objective(config: ConfigDict, architecture: Architecture) -> Objective:
    """Returns the loss of `config.loss` on a network's outputs.

    Args:
      config: section `loss`; see deeplab_jax/config_fields.py.
      architecture: architecture of the network, which determines its endpoints.

    Raises:
      DeepLabError: a field is invalid, or fields contradict each other or the network.
    """
    check_loss(config, architecture)
    loss = _all_scales if config.supervise_all_scales else _one_scale
    objective = partial(loss, config, architecture)
    return _mean_of_images(objective) if config.normalization == "images" else objective


def _mean_of_images(objective: Objective) -> Objective:
    """Returns the mean over a batch of the losses of single images.

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
    """Returns the weighted terms on the logits, or on the scores before upsampling."""
    loss, maps = losses.weighted_sum(*_terms(config, architecture, step)), outputs.maps
    if config.upsample_logits and not config.chunk_rows:
        pair = outputs.logits, maps.get("auxiliary")
    else:
        pair = maps["fused_scores"], maps.get("auxiliary_scores")
    if not config.upsample_logits:
        loss = _of_scores(loss, batch_label)
    normalizer = losses.num_valid_pixels(batch_label, architecture.num_classes)
    return losses.with_auxiliary(loss, *pair, label, normalizer, weight=config.auxiliary_weight)


def _of_scores(loss: losses.Loss, batch_label: jax.Array) -> losses.Loss:
    """Returns the loss that downsamples labels to the size of the given scores.

    The loss ignores its normalizer: the divisor is the number of valid pixels of the batch at the
    size of the scores, which may differ between the classifier and the auxiliary head.
    """

    def shrunk(
        scores: jax.Array, label: jax.Array, normalizer: jax.Array | None = None
    ) -> jax.Array:
        del normalizer
        size = scores.shape[1:3]
        known = losses.num_valid_pixels(losses.shrink_labels(batch_label, size), scores.shape[-1])
        return loss(scores, losses.shrink_labels(label, size), known)

    return shrunk


def _weighted(config: ConfigDict) -> dict[str, Any]:
    return {"class_weights": config.class_weights, "label_smoothing": config.label_smoothing}


def _terms(
    config: ConfigDict, architecture: Architecture, step: jax.Array
) -> list[tuple[float, losses.Loss]]:
    """Returns the terms with nonzero weight, each with its weight."""
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
    """Returns the cross-entropy of the scores of each scale and of their maximum."""
    del step
    weighted, maps = _weighted(config), outputs.maps
    total = losses.multi_scale_cross_entropy(
        maps, label, batch_label, align_corners=architecture.align_corners, **weighted
    )
    auxiliary = maps.get("auxiliary_scores")
    if auxiliary is not None:
        loss = _of_scores(partial(losses.softmax_cross_entropy, **weighted), batch_label)
        total += config.auxiliary_weight * loss(auxiliary, label, None)
    return config.cross_entropy * total


def check_loss(config: ConfigDict, architecture: Architecture) -> None:
    """Checks the section `loss`.

    Raises:
      DeepLabError: a field is illegal, or fields contradict each other or the network.
    """
    configs.check(config, "loss.")
    weights: dict[str, Any] = {name: config[name] for name in TERMS}
    if min(weights.values()) < 0 or not any(weights.values()):
        raise DeepLabError(f"loss: of {weights} none may be negative and one must be above 0")
    pure = config.hard_pixel_fraction == 1 and not any(config[name] for name in TERMS[1:])
    if config.chunk_rows and not (config.upsample_logits and pure):
        raise DeepLabError(
            f"loss.chunk_rows={config.chunk_rows} is for cross-entropy alone, of all pixels, "
            "with loss.upsample_logits=True; give 0"
        )
    if not config.supervise_all_scales:
        return
    if not architecture.multi_scale:
        raise DeepLabError(
            "loss.supervise_all_scales needs model.multi_scale, as in (1, 0.75, 0.5)"
        )
    if config.upsample_logits or not pure:
        raise DeepLabError(
            "loss.supervise_all_scales is DeepLab v2's: cross-entropy alone, of all pixels, with "
            "loss.upsample_logits=False"
        )
