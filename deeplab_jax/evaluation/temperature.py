"""Temperature scaling: finds the divisor of the logits that minimizes negative log-likelihood."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.data import Dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.evaluate import check_labelled, describe_settings, warn_of_other_names
from deeplab_jax.evaluation.passes import (
    EvaluationSettings,
    Inference,
    check_segments,
    make_inference,
    sum_over_hosts,
)
from deeplab_jax.evaluation.results import image_scores
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.labels import void_label
from deeplab_jax.reporter import LoggingReporter, Reporter

# Bounds of the temperature, and the number of temperatures that each pass over the split evaluates.
LEAST, MOST, NODES = 1 / 16, 16.0, 9
# The device processes blocks of ROWS rows with ROW pixels each. The sum over a row is computed in
# float32, and the sum over all rows in float64.
ROWS, ROW = 256, 256


class TemperatureFit(NamedTuple):
    """Result of `fit_temperature`.

    Attributes:
      temperature: divisor of the logits that minimizes the negative log-likelihood.
      before, after: negative log-likelihood per pixel in nats, at temperature 1 and at
        `temperature`.
      num_images, num_pixels: number of images, and number of pixels that are not void.
      settings: settings of the inference, as in `metrics.json`, but without `temperature` and
        `crf`.
    """

    temperature: float
    before: float
    after: float
    num_images: int
    num_pixels: int
    settings: dict[str, Any]


def fit_temperature(
    predictor: Predictor,
    dataset: Dataset,
    *,
    options: InferenceOptions | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> TemperatureFit:
    """Fits the temperature of class probabilities by maximum likelihood over all non-void pixels.

    The negative log-likelihood is convex in the inverse temperature. A first pass over the split
    computes this function and its first two derivatives at nine temperatures from 1/16 to 16. A
    second pass does the same at nine temperatures in the interval that contains the minimum. The
    minimum is the root of a cubic spline through the first derivatives, with a relative error of
    about 1e-6. No logits are stored.

    Args:
      predictor: model whose temperature is fitted; its current temperature is ignored.
      dataset: split with the classes of the model, on which the model was not trained.
      options: inference strategy, without a CRF (default: that of the predictor).
      reporter: receives progress events (default: the logger).
      **settings: fields of `EvaluationSettings`, such as size, batch_size, mesh, workers and limit.

    Raises:
      DeepLabError: the options have a CRF, the likelihood has no maximum in 1/16..16, all pixels
        are void, an image is damaged, the outputs of the network are not finite, or the numbers of
        classes of model and dataset differ.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2.
    """
    reporter = reporter or LoggingReporter()
    check_segments(predictor)
    predictor = predictor.with_options(options or predictor.options)
    if predictor.crf is not None:
        raise DeepLabError("temperature scaling cannot be combined with a CRF; omit crf (--crf)")
    chosen = EvaluationSettings(**settings)
    inference = make_inference(predictor, dataset, chosen)
    warn_of_other_names(predictor, dataset, reporter)
    tried = np.geomspace(1 / MOST, 1 / LEAST, NODES)
    first = _likelihoods(inference, predictor, tried, reporter)
    check_labelled(first[3], inference)
    index = int(np.searchsorted(first[1], 0.0))
    if index in (0, NODES):
        raise DeepLabError(
            f"cannot fit a temperature on {dataset.name}/{dataset.split}, because the likelihood "
            f"has no maximum at temperatures from {LEAST:g} to {MOST:g}: "
            + ("the model is no better than chance" if index == 0 else "the model makes no errors")
            + "; use a split that was not used for training, and a model that is better than chance"
        )
    between = np.geomspace(tried[index - 1], tried[index], NODES)
    inverse, after = _minimum(between, _likelihoods(inference, predictor, between, reporter))
    settings = describe_settings(predictor, inference, chosen)
    del settings["temperature"], settings["crf"]
    before = first[0][NODES // 2]
    counts = (inference.num_images, int(first[3][0]))
    return TemperatureFit(1 / inverse, float(before), after, *counts, settings)


def _minimum(inverses: np.ndarray, likelihoods: np.ndarray) -> tuple[float, float]:
    """Returns the inverse temperature with the lowest negative log-likelihood, and this minimum.

    Args:
      inverses: ascending inverse temperatures that enclose the minimum.
      likelihoods: [4, K] for K inverse temperatures: negative log-likelihood per pixel, its first
        and second derivative with respect to the inverse temperature, and number of pixels.
    """
    from scipy.interpolate import CubicHermiteSpline

    values, first, second, _ = likelihoods
    slope = CubicHermiteSpline(inverses, first, second)
    roots = slope.roots(extrapolate=False)
    # There is no root if rounding moved the minimum out of the interval.
    nearest = inverses[np.argmin(np.abs(first))]
    inverse = float(roots[0]) if len(roots) else float(nearest)
    return inverse, float(values[0] + slope.integrate(inverses[0], inverse))


def _likelihoods(
    inference: Inference, predictor: Predictor, inverses: np.ndarray, reporter: Reporter
) -> np.ndarray:
    """Returns the negative log-likelihood of a split, and its derivatives.

    Returns:
      float64 [4, K] for the K `inverses`. The first three rows are means over the non-void
      pixels: the negative log-likelihood, and its first and second derivative with respect to the
      inverse temperature. The last row is the number of non-void pixels.
    """
    total, pixels = np.zeros((3, len(inverses))), 0
    for _, scores, _, label in image_scores(inference, predictor, reporter):
        for logits, truth in _blocks(scores, label):
            sums = _row_sums(logits, truth, inverses.astype(np.float32))
            total += np.asarray(sums, np.float64).sum(axis=-1)
            pixels += int((truth >= 0).sum())
    counted = np.concatenate([total, np.full((1, len(inverses)), float(pixels))])
    counted = sum_over_hosts(counted)
    counted[:3] /= np.maximum(counted[3], 1)
    return counted


def _blocks(scores: np.ndarray, label: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the non-void pixels of an image, gathered into blocks of 256 × 256 pixels.

    All blocks have the same shape, so that `_row_sums` is compiled only once.

    Args:
      scores: logits [H, W, C].
      label: true classes and void [H, W].

    Yields:
      Logits [256, 256, C] and true classes [256, 256]. The last block is padded with class −1.
    """
    valid = label != void_label(scores.shape[-1])
    logits, truth = scores[valid], label[valid].astype(np.int32)
    for start in range(0, len(truth), ROWS * ROW):
        rows = slice(start, start + ROWS * ROW)
        missing = ROWS * ROW - len(truth[rows])
        block = np.pad(logits[rows], ((0, missing), (0, 0)))
        own = np.pad(truth[rows], (0, missing), constant_values=-1)
        yield block.reshape(ROWS, ROW, -1), own.reshape(ROWS, ROW)


@jax.jit
def _row_sums(logits: jax.Array, truth: jax.Array, inverses: jax.Array) -> jax.Array:
    """Returns the negative log-likelihood and its derivatives, summed over each row of a block.

    Let β be the inverse temperature, z the logits minus the largest logit, and t the true class.
    The negative log-likelihood is ln Σ exp(βz) − βz[t]. Its first derivative is E[z] − z[t], and
    its second derivative is Var[z]. E and Var are the mean and the variance over the classes, with
    the probabilities softmax(βz).

    Args:
      logits: logits [rows, pixels, C] of a block.
      truth: true classes [rows, pixels]; −1: the pixel is not counted.
      inverses: inverse temperatures [K].

    Returns:
      Array [3, K, rows]: negative log-likelihood, first and second derivative.
    """
    relative = logits - logits.max(axis=-1, keepdims=True)
    own = jnp.take_along_axis(relative, jnp.maximum(truth, 0)[..., None], axis=-1)[..., 0]

    def at(inverse: jax.Array) -> jax.Array:
        odds = jnp.exp(inverse * relative)
        total = odds.sum(axis=-1)
        mean = (odds * relative).sum(axis=-1) / total
        variance = (odds * (relative - mean[..., None]) ** 2).sum(axis=-1) / total
        terms = jnp.stack([jnp.log(total) - inverse * own, mean - own, variance])
        return jnp.where(truth >= 0, terms, 0).sum(axis=-1)

    return jnp.moveaxis(jax.lax.map(at, inverses), 0, 1)
