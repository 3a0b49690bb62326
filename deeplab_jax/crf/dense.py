"""Refinement of class scores by a dense CRF."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deeplab_jax.arrays import Array, Float, UInt8
from deeplab_jax.crf.lattice import Lattice, build_lattice, round_up
from deeplab_jax.crf.mean_field import (
    AllPairs,
    Filter,
    bilateral_features,
    mean_field,
    normalized,
    position_features,
)
from deeplab_jax.crf.parameters import NUMBERS, CRFParameters, check_parameters
from deeplab_jax.errors import DeepLabError

# Maximum number of pixels for which `filtering="auto"` sums over all pairs of pixels.
DIRECT_PIXELS = 4096
# The number of channels is padded to a multiple of CHANNELS, because rows that fill whole vector
# registers are gathered faster.
CHANNELS = 8
# Logit of the padded channels. It is finite in every dtype, and its probability is 0.
PADDED_LOGIT = -1e9

# CRFParameters is registered here, because the module that defines it does not import JAX.
jax.tree_util.register_dataclass(
    CRFParameters,
    data_fields=list(NUMBERS),
    meta_fields=["iterations", "normalization", "filtering"],
)


def dense_crf(
    logits: jax.Array,
    image: jax.Array,
    parameters: CRFParameters,
    *,
    compatibility: jax.Array | None = None,
    lattice_capacity: int | None = None,
) -> Float[Array, "N H W C"]:
    """Refines class scores with a fully connected CRF over the colors and positions of pixels.

    The kernels are evaluated exactly, over all pairs of pixels, or with permutohedral lattices;
    `parameters.filtering` selects the method. Outside `jit`, the bilateral lattice has as many
    vertices as the image requires. Inside `jit`, it has `lattice_capacity` vertices if the image or
    a standard deviation is traced.

    The function can be called inside `jit`. It is differentiable with respect to the logits, the
    kernel weights and the compatibility matrix. Gradients with respect to the standard deviations
    are 0.

    Args:
      logits: [N, H, W, C], floating point, at the resolution of the image. Log probabilities are
        valid logits.
      image: uint8 [N, H, W, 3], RGB before any preprocessing.
      parameters: kernels, iterations and normalization; `deeplab_jax.crf.PARAMETERS` contains
        published values by name.
      compatibility: [C, C], cost of assigning label l (row) to a pixel if another pixel has label
        l' (column) (default: Potts model, 1 − δ).
      lattice_capacity: number of vertices of the bilateral lattice inside `jit` (default: the
        largest possible number, several times that of typical images). If an image requires more,
        all its probabilities are NaN.

    Returns:
      Probabilities [N, H, W, C], float32, or float64 for float64 logits.

    Raises:
      DeepLabError: shapes, dtypes or parameters are invalid.

    Source: DeepLab v1, section 2.3; v2, section 3.3.
    """
    logits = _checked_logits(logits, image, parameters, compatibility)
    refine = functools.partial(_refine, parameters, compatibility, lattice_capacity)
    if logits.shape[0] == 0:
        return logits
    if logits.shape[0] == 1:
        return refine(logits[0], image[0])[None]
    # Images are processed one after the other, because each image has its own lattice, and a single
    # image uses all cores.
    if isinstance(image, jax.core.Tracer):
        return lax.map(lambda pair: refine(*pair), (logits, image))
    return jnp.stack([refine(*pair) for pair in zip(logits, image, strict=True)])


def dense_crf_of_weights(
    logits: Float[Array, "H W C"],
    image: UInt8[Array, "H W 3"],
    parameters: CRFParameters,
    bilateral_weights: Iterable[float],
) -> Iterator[Float[Array, "H W C"]]:
    """Refines the class scores of one image several times, each with another bilateral weight.

    The results equal those of `dense_crf`, but the lattices are built only once.

    Args:
      logits: [H, W, C], floating point.
      image: uint8 [H, W, 3], RGB.
      parameters: kernels, iterations and normalization; the bilateral weight is ignored.
      bilateral_weights: weights of the bilateral kernel, one for each refinement.

    Yields:
      Probabilities [H, W, C] for each weight, float32, or float64 for float64 logits.

    Raises:
      DeepLabError: shapes, dtypes or parameters are invalid.
    """
    logits = _checked_logits(logits[None], image[None], parameters, None)[0]
    flat, filters = _prepare(logits, jnp.asarray(image), parameters, None)
    for weight in bilateral_weights:
        weighted = dataclasses.replace(parameters, bilateral_weight=weight)
        check_parameters(weighted)
        yield _unflatten(_infer(flat, filters, weighted, None), logits.shape)


def _checked_logits(
    logits: jax.Array,
    image: jax.Array,
    parameters: CRFParameters,
    compatibility: jax.Array | None,
) -> jax.Array:
    """Checks the arguments of `dense_crf`.

    Returns:
      The logits as float32; float64 logits remain float64.
    """
    shape, image_shape = np.shape(logits), np.shape(image)
    if len(shape) != 4 or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise DeepLabError(
            "CRF logits must be floating point with shape [N, H, W, C], got "
            f"{logits.dtype} {list(shape)}"
        )
    if image_shape != (*shape[:3], 3) or image.dtype != jnp.uint8:
        raise DeepLabError(
            f"for logits {list(shape)} the image of a CRF must be uint8 {[*shape[:3], 3]}, got "
            f"{image.dtype} {list(image_shape)}"
        )
    if 0 in shape[1:]:
        raise DeepLabError(f"CRF logits must have at least 1 pixel and 1 class, got {list(shape)}")
    if compatibility is not None and np.shape(compatibility) != (shape[3], shape[3]):
        raise DeepLabError(
            f"for logits {list(shape)} the compatibility matrix of a CRF must be "
            f"{[shape[3], shape[3]]}, got {list(np.shape(compatibility))}"
        )
    check_parameters(parameters)
    logits = jnp.asarray(logits)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _refine(
    parameters: CRFParameters,
    compatibility: Float[Array, "C C"] | None,
    capacity: int | None,
    logits: Float[Array, "H W C"],
    image: UInt8[Array, "H W 3"],
) -> Float[Array, "H W C"]:
    """Returns probabilities [H, W, C] of one image.

    The arguments are those of `dense_crf`; `capacity` is its argument `lattice_capacity`.
    """
    flat, filters = _prepare(logits, image, parameters, capacity)
    if compatibility is not None:
        padding = (0, flat.shape[1] - logits.shape[2])
        compatibility = jnp.pad(jnp.asarray(compatibility, logits.dtype), padding)
    marginals = _infer(flat, filters, parameters, compatibility)
    return _unflatten(marginals, logits.shape)


def _prepare(
    logits: jax.Array, image: jax.Array, parameters: CRFParameters, capacity: int | None
) -> tuple[jax.Array, tuple[Filter, Filter]]:
    """Returns the padded logits of one image, and the filters of the two kernels of the CRF.

    The logits are [M, P]: pixels are padded to M ≥ H·W, and channels to P ≥ C. The first filter is
    that of the bilateral kernel, the second that of the smoothness kernel. Neither depends on the
    weights of the kernels.
    """
    pixels = logits.shape[0] * logits.shape[1]
    # These functions are compiled for each image size. `_infer` is compiled separately, because
    # with a lattice it depends only on the padded size.
    if _takes_all_pairs(parameters, pixels):
        return _flatten(logits, pixels), _direct_filters(image, parameters, logits.dtype)
    size = round_up(pixels)
    return _flatten(logits, size), _lattice_filters(image, parameters, size, capacity)


@functools.partial(jax.jit, static_argnames="size")
def _flatten(logits: Float[Array, "H W C"], size: int) -> Float[Array, "M P"]:
    """Reshapes logits to [pixels, channels], and pads both axes.

    The first axis is padded to `size` pixels, the second to a multiple of 8 channels. All padding
    logits are −10⁹, so that added channels have probability 0 at the pixels of the image.
    """
    flat = logits.reshape(-1, logits.shape[-1])
    padding = ((0, size - flat.shape[0]), (0, -flat.shape[1] % CHANNELS))
    return jnp.pad(flat, padding, constant_values=PADDED_LOGIT)


@functools.partial(jax.jit, static_argnames="shape")
def _unflatten(
    marginals: Float[Array, "M P"], shape: tuple[int, int, int]
) -> Float[Array, "H W C"]:
    return marginals[: shape[0] * shape[1], : shape[2]].reshape(shape)


def _takes_all_pairs(parameters: CRFParameters, pixels: int) -> bool:
    if parameters.filtering == "auto":
        return parameters.normalization == "after" and pixels <= DIRECT_PIXELS
    return parameters.filtering == "direct"


def _direct_filters(
    image: jax.Array, parameters: CRFParameters, dtype: jnp.dtype
) -> tuple[Filter, Filter]:
    bilateral = bilateral_features(
        image, parameters.bilateral_position_std, parameters.bilateral_color_std, dtype
    )
    position = position_features(image.shape[:2], parameters.smoothness_position_std, dtype)
    return AllPairs(bilateral), AllPairs(position)


def _lattice_filters(
    image: jax.Array, parameters: CRFParameters, size: int, capacity: int | None
) -> tuple[Filter, Filter]:
    height, width = image.shape[:2]
    deviations = (parameters.bilateral_position_std, parameters.bilateral_color_std)
    known = not any(
        isinstance(leaf, jax.core.Tracer) for leaf in (image, *jax.tree.leaves(deviations))
    )
    with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
        features = _padded_bilateral(image, *deviations, size)
        bilateral = build_lattice(features, height * width, capacity)
    std = parameters.smoothness_position_std
    is_number = isinstance(std, (int, float))
    position_lattice = _cached_position_lattice if is_number else _position_lattice
    return bilateral, position_lattice((height, width), std, size)


@functools.partial(jax.jit, static_argnames="size")
def _padded_bilateral(
    image: UInt8[Array, "H W 3"], position_std: float, color_std: float, size: int
) -> Float[Array, "5 M"]:
    features = bilateral_features(image, position_std, color_std, jnp.float32)
    return _repeat_last(features, size)


def _position_lattice(size: tuple[int, int], std: float, padded: int) -> Lattice:
    features = _repeat_last(position_features(size, std, jnp.float32), padded)
    return build_lattice(features, size[0] * size[1])


# The position lattice depends only on the size of the image.
@functools.lru_cache(maxsize=4)
def _cached_position_lattice(size: tuple[int, int], std: float, padded: int) -> Lattice:
    with jax.ensure_compile_time_eval():
        return _position_lattice(size, std, padded)


def _repeat_last(features: Float[Array, "d N"], size: int) -> Float[Array, "d M"]:
    return jnp.pad(features, ((0, 0), (0, size - features.shape[1])), mode="edge")


@jax.jit
def _infer(
    logits: Float[Array, "M P"],
    filters: tuple[Filter, Filter],
    parameters: CRFParameters,
    compatibility: Float[Array, "P P"] | None,
) -> Float[Array, "M P"]:
    weights = (parameters.bilateral_weight, parameters.smoothness_weight)
    kernels = [
        normalized(weight, kernel, logits.shape[0], parameters.normalization, logits.dtype)
        for weight, kernel in zip(weights, filters, strict=True)
    ]
    return mean_field(logits, kernels, parameters.iterations, compatibility)
