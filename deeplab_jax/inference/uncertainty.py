"""Uncertainty of each pixel: from probabilities, from MC dropout, or from scales and flips."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.inference.forward import (
    FoldedNetwork,
    apply_at_scale,
    mirror,
    one_device_as_none,
    one_scale,
)
from deeplab_jax.inference.options import DEFAULT_SAMPLES, InferenceOptions
from deeplab_jax.inference.padding import Size
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import batch_sharding, replicated

CONFIDENCE, ENTROPY, DROPOUT, SCALES = "confidence", "entropy", "dropout", "scales"
UNCERTAINTIES = (CONFIDENCE, ENTROPY, DROPOUT, SCALES)
# Seed of the dropout masks.
SEED = 0

# Function from images [N, h, w, C] to their uncertainty, float32 [N, h, w].
Uncertainty = Callable[[np.ndarray], Any]


def check_uncertainties(names: Sequence[str]) -> None:
    """Checks that each name is one of `UNCERTAINTIES`, and occurs once.

    Raises:
      DeepLabError: a name is unknown or repeated. For an unknown name, the message lists the legal
        names.
    """
    for name in names:
        check_name("uncertainty", name, UNCERTAINTIES)
    if len(set(names)) < len(names):
        raise DeepLabError(f"uncertainty {','.join(names)} contains one name twice; list it once")


def of_probabilities(name: str, probabilities: np.ndarray) -> np.ndarray:
    """Returns the uncertainty of each pixel, computed from its class probabilities.

    The result is float32 [...], in 0..1; it has the shape of `probabilities` without the last axis.

    Args:
      name: `confidence`, which is 1 − the largest probability, or `entropy`, which is the entropy
        Σ −p·ln p of the probabilities p, divided by ln C.
      probabilities: float32 [..., C], where C is the number of classes.
    """
    if name == CONFIDENCE:
        return 1 - probabilities.max(axis=-1)
    information = -probabilities * np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return information.sum(axis=-1) / math.log(max(2, probabilities.shape[-1]))


def uncertainty_functions(
    predictor: Predictor,
    names: Sequence[str],
    mesh: Mesh | None = None,
    samples: int = DEFAULT_SAMPLES,
) -> dict[str, Uncertainty]:
    """Returns functions that compute the uncertainties `dropout` and `scales` of each pixel.

    `dropout` is the variance of the class probabilities over random dropout masks. `scales` is
    their variance over the scales and flips of the inference options. Both variances are summed
    over the classes. The probabilities are those at the temperature of the predictor.

    Args:
      predictor: model and inference options.
      names: names of uncertainties, from `UNCERTAINTIES`. `confidence` and `entropy` are ignored,
        because `of_probabilities` computes them.
      mesh: devices over which images are sharded; None uses the first device of this process.
      samples: number of dropout masks.

    Returns:
      {name: function} for each of `dropout` and `scales` that `names` contains. Each function maps
      padded images [N, h, w, C] to the uncertainty of each pixel, float32 [N, h, w].

    Raises:
      DeepLabError: a name is unknown or repeated. For `dropout` and `scales`: the predictor has a
        CRF, an exported network, or an engine other than JAX. For `dropout`: the network has no
        dropout, or `samples` is below 2. For `scales`: the options have only one scale and no flip.
    """
    check_uncertainties(names)
    network, options, temperature = predictor.network, predictor.options, predictor.temperature
    needed = [name for name in names if name in (DROPOUT, SCALES)]
    functions: dict[str, Uncertainty] = {}
    if not needed:
        return functions
    if predictor.crf is not None:
        raise DeepLabError(
            f"uncertainty {needed[0]!r} cannot be computed with a CRF; omit crf (--crf)"
        )
    if not isinstance(network, FoldedNetwork):
        raise DeepLabError(
            f"uncertainty {needed[0]!r} requires a model directory and the engine jax; "
            f"use {CONFIDENCE} or {ENTROPY}, which work with every engine"
        )
    mesh = one_device_as_none(mesh)
    if SCALES in names:
        of_scales = _scale_variance(network.model, options, temperature, mesh)
        functions[SCALES] = network.bind(of_scales, mesh)
    if DROPOUT in names:
        _check_dropout(network)
        of_dropout = _dropout_variance(network.model, samples, temperature, mesh)
        functions[DROPOUT] = network.bind(of_dropout, mesh)
    return functions


def _dropout_variance(
    model: DeepLab, samples: int, temperature: float, mesh: Mesh | None
) -> Callable[[Any, Any], jax.Array]:
    """Returns a compiled function for the variance of the probabilities over dropout masks.

    The function maps variables and images [N, h, w, C] to the variance of each pixel, summed over
    the classes, [N, h, w]. It ignores the scales and flips of inference. If `mesh` is given, images
    and result are sharded over its axis `data`.

    All images have the same masks, so that the result of an image does not depend on its batch.

    Source: Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016.
    """
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise DeepLabError(f"dropout_samples={samples!r} must be a whole number of at least 2")
    keys = jax.random.split(jax.random.key(SEED), samples)

    def probabilities(variables: Any, image: jax.Array, key: jax.Array) -> jax.Array:
        streams = {"dropout": key}
        logits = model.apply(variables, image[None], rngs=streams, method="logits_with_dropout")
        return jax.nn.softmax(logits[0] / temperature, axis=-1)

    def variance(variables: Any, image: jax.Array) -> jax.Array:
        # The backbone does not depend on the key, so it is computed once per image.
        sampled = jax.vmap(partial(probabilities, variables, image))(keys)
        return sampled.var(axis=0).sum(axis=-1)

    def of_batch(variables: Any, images: Any) -> jax.Array:
        return jax.lax.map(partial(variance, variables), images)

    if mesh is None:
        return jax.jit(of_batch)
    # Each device computes its own images. A loop over a sharded batch would send each image to
    # every device.
    own = batch_sharding(mesh).spec
    return jax.jit(
        jax.shard_map(of_batch, mesh=mesh, in_specs=(replicated(mesh).spec, own), out_specs=own)
    )


def _check_dropout(network: FoldedNetwork) -> None:
    """Raises `DeepLabError` if a network has no dropout."""
    channels = network.model.architecture.in_channels
    image = jax.ShapeDtypeStruct((1, 33, 33, channels), jnp.uint8)
    apply = partial(network.model.apply, method="logits_with_dropout")
    try:
        # Without a random stream, a layer of dropout raises an error.
        jax.eval_shape(apply, network.variables, image)
    except flax.errors.InvalidRngError:
        return
    raise DeepLabError(
        "uncertainty 'dropout' requires a network with dropout, but this one has none "
        "(dropout_rate is 0, or its head has no dropout); use scales, confidence or entropy"
    )


def _scale_variance(
    model: DeepLab, options: InferenceOptions, temperature: float, mesh: Mesh | None
) -> Callable[[Any, Any], jax.Array]:
    """Returns a function that computes the variance of the probabilities over scales and flips.

    The scales and flips are those of `options`. The function maps variables and images [N, h, w, C]
    to the variance of each pixel, summed over the classes, [N, h, w]. If `mesh` is given, images
    and result are sharded over its axis `data`.
    """
    flips = (False, True) if options.flip else (False,)
    members = [(scale, mirrored) for scale in options.scales for mirrored in flips]
    if len(members) < 2:
        raise DeepLabError(
            "uncertainty 'scales' requires several scales or flips; give --scales, as in "
            "--scales=0.75,1,1.25, or --flip"
        )
    network, align_corners = one_scale(model, options.scales), model.architecture.align_corners
    of_moments = jax.jit(
        partial(_variance, count=len(members)),
        out_shardings=None if mesh is None else batch_sharding(mesh),
    )

    def variance(variables: Any, image: Any) -> jax.Array:
        size, total = image.shape[1:3], None
        for scale, mirrored in members:
            seen = mirror(image) if mirrored else image
            logits = apply_at_scale(variables, seen, model=network, scale=scale, mesh=mesh)
            total = _add_moments(
                total,
                logits / temperature,
                size=size,
                mirrored=mirrored,
                align_corners=align_corners,
            )
        return of_moments(total)

    return variance


@partial(jax.jit, static_argnames=("size", "mirrored", "align_corners"), donate_argnums=0)
def _add_moments(
    total: tuple[jax.Array, jax.Array] | None,
    logits: jax.Array,
    *,
    size: Size,
    mirrored: bool,
    align_corners: bool,
) -> tuple[jax.Array, jax.Array]:
    """Adds the probabilities p at one scale and flip to Σ p [N, H, W, C] and Σ ‖p‖² [N, H, W].

    p is the softmax of the logits after resizing to `size` (H, W). `total` contains the two sums
    over the previous scales and flips; it is None in the first call. If `mirrored` is True, the
    logits are those of the mirrored image, and are mirrored back before they are resized.
    """
    upright = logits[:, :, ::-1] if mirrored else logits
    full = ops.resize_bilinear(upright, size, align_corners=align_corners)
    probabilities = jax.nn.softmax(full, axis=-1)
    squares = (probabilities**2).sum(axis=-1)
    if total is None:
        return probabilities, squares
    return total[0] + probabilities, total[1] + squares


def _variance(total: tuple[jax.Array, jax.Array] | None, *, count: int) -> jax.Array:
    """Returns mean ‖p‖² − ‖mean p‖², the variance of the class probabilities, summed over classes.

    `total` contains Σ p and Σ ‖p‖² over `count` pairs of a scale and a flip.
    """
    assert total is not None
    mean = total[0] / count
    return jnp.maximum(total[1] / count - (mean**2).sum(axis=-1), 0)
