"""Benchmark of the dense CRF on one image, compared with pydensecrf."""

import functools
import importlib
import statistics
import time
from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.benchmark.machine import run_seconds
from deeplab_jax.crf import CRFParameters, bilateral_features, build_lattice, dense_crf
from deeplab_jax.crf.lattice import blur, slice_, splat
from deeplab_jax.errors import DeepLabError

# Logits are padded to a multiple of this number of channels, as in `dense_crf`.
CHANNELS = 8
# Size of the generated image, (height, width): a common size of PASCAL VOC.
SIZE = (375, 500)


def made_image() -> np.ndarray:
    """Returns a synthetic uint8 image [375, 500, 3]: colored regions with shading and noise."""
    random = np.random.default_rng(0)

    def smooth(channels: int, deviation: float) -> np.ndarray:
        return cv2.GaussianBlur(random.normal(size=(*SIZE, channels)), (0, 0), deviation)

    color = random.uniform(30, 225, (6, 3))[smooth(6, 40).argmax(axis=-1)]
    shading, grain = 600 * smooth(3, 20), 3 * random.normal(size=color.shape)
    return (color + shading + grain).clip(0, 255).astype(np.uint8)


def made_logits(size: tuple[int, int], num_classes: int) -> np.ndarray:
    """Returns random float32 logits [*size, num_classes] that vary smoothly over the image.

    The time of a CRF does not depend on the values of the logits.
    """
    random = np.random.default_rng(0)
    coarse = random.normal(0, 3, (-(-size[0] // 16), -(-size[1] // 16), num_classes))
    planes = [cv2.resize(plane, size[::-1]) for plane in np.moveaxis(coarse, -1, 0)]
    return np.stack(planes, axis=-1).astype(np.float32)


def measure_crf(
    image: np.ndarray, logits: np.ndarray, parameters: CRFParameters, *, repetitions: int = 5
) -> dict[str, float]:
    """Times the dense CRF and pydensecrf on one image, in alternating runs after warm-up.

    Args:
      image: uint8 [H, W, 3].
      logits: float32 [H, W, C].
      parameters: kernel weights, standard deviations and number of iterations of the CRF.
      repetitions: number of timed runs of each implementation.

    Returns:
      The result of `profile_crf`, and in the same dictionary:

      - `seconds`, `processor_seconds`: median wall time and processor time of `dense_crf`.
      - `pydensecrf_seconds`, `pydensecrf_processor_seconds`: the same for pydensecrf, which runs on
        one core.
      - `ratio`: `seconds` divided by `pydensecrf_seconds`.
      - `label_agreement`: fraction of pixels, 0..1, to which both implementations assign the same
        class.

    Raises:
      DeepLabError: pydensecrf is not installed.
    """
    batch = jnp.asarray(logits)[None], jnp.asarray(image)[None]

    marginals = functools.partial(pydensecrf_marginals, image, logits, parameters)

    def ours() -> np.ndarray:
        return np.asarray(dense_crf(*batch, parameters))[0]

    same = np.argmax(ours(), axis=-1) == np.argmax(marginals(), axis=-1)
    turns = [(_seconds(ours), _seconds(marginals)) for _ in range(repetitions)]
    (mine, mine_processor), (other, other_processor) = np.median(turns, axis=0).tolist()
    return {
        "seconds": mine,
        "processor_seconds": mine_processor,
        "pydensecrf_seconds": other,
        "pydensecrf_processor_seconds": other_processor,
        "ratio": mine / other,
        "label_agreement": float(same.mean()),
        **profile_crf(image, logits, parameters, repetitions=repetitions),
    }


def profile_crf(
    image: np.ndarray, logits: np.ndarray, parameters: CRFParameters, *, repetitions: int = 5
) -> dict[str, float]:
    """Times each step of the bilateral filtering in the dense CRF.

    The filtering uses a permutohedral lattice.

    Args:
      image: uint8 [H, W, 3].
      logits: float32 [H, W, C].
      parameters: kernel weights, standard deviations and number of iterations of the CRF.
      repetitions: number of timed runs of each step.

    Returns:
      A dictionary with median times in seconds, and the size of the lattice:

      - `lattice_seconds`: building the lattice, once per image.
      - `splat_seconds`, `blur_seconds`, `slice_seconds`: the three steps of filtering, each once
        per iteration of the CRF.
      - `vertices_per_pixel`: number of allocated lattice vertices divided by the number of pixels.
    """
    features = bilateral_features(
        jnp.asarray(image),
        parameters.bilateral_position_std,
        parameters.bilateral_color_std,
        jnp.float32,
    )
    lattice = build_lattice(features)
    values = jnp.asarray(logits).reshape(features.shape[1], -1)
    values = jnp.pad(values, ((0, 0), (0, -values.shape[1] % CHANNELS)))
    spread = jax.jit(splat)(lattice, values)
    steps = {
        "lattice_seconds": lambda: build_lattice(features),
        "splat_seconds": lambda: jax.jit(splat)(lattice, values),
        "blur_seconds": lambda: jax.jit(blur)(lattice, spread),
        "slice_seconds": lambda: jax.jit(slice_)(lattice, spread),
    }
    seconds = {
        name: statistics.median(run_seconds(step, repetitions)) for name, step in steps.items()
    }
    return seconds | {"vertices_per_pixel": len(spread) / len(values)}


def pydensecrf_marginals(
    image: np.ndarray, logits: np.ndarray, parameters: CRFParameters
) -> np.ndarray:
    """Returns the class probabilities [H, W, C] that pydensecrf computes.

    Args:
      image: uint8 [H, W, 3].
      logits: float32 [H, W, C].
      parameters: kernel weights, standard deviations and number of iterations of the CRF.

    Raises:
      DeepLabError: pydensecrf is not installed.
    """
    try:
        library = importlib.import_module("pydensecrf.densecrf")
    except ImportError as error:
        raise DeepLabError(
            "this benchmark requires pydensecrf; run pip install pydensecrf2"
        ) from error
    normalization = getattr(library, f"NORMALIZE_{parameters.normalization.upper()}")
    height, width, classes = logits.shape
    crf = library.DenseCRF2D(width, height, classes)
    energy = -np.asarray(logits, np.float32).reshape(-1, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(energy.T))
    crf.addPairwiseGaussian(
        sxy=parameters.smoothness_position_std,
        compat=parameters.smoothness_weight,
        normalization=normalization,
    )
    crf.addPairwiseBilateral(
        sxy=parameters.bilateral_position_std,
        srgb=parameters.bilateral_color_std,
        rgbim=np.ascontiguousarray(image),
        compat=parameters.bilateral_weight,
        normalization=normalization,
    )
    marginals = np.asarray(crf.inference(parameters.iterations))
    return marginals.T.reshape(logits.shape)


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Returns the wall time and the processor time of a call, in seconds."""
    started, busy = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return time.perf_counter() - started, time.process_time() - busy
