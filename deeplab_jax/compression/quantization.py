"""Post-training quantization to 8-bit integers, and fine-tuning that simulates it."""

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from deeplab_jax.checkpointing import SEGMENTATION, StoredModel
from deeplab_jax.compression.calibration import Path, input_statistics
from deeplab_jax.errors import DeepLabError
from deeplab_jax.layers.integers import OUTPUT_CHANNELS, quantizer
from deeplab_jax.models import DeepLab, fold
from deeplab_jax.training.setup import Run

# Of each image's smallest and greatest input of a convolution; [2].
Extremes = np.ndarray


def quantize(
    stored: StoredModel, images: Iterable[np.ndarray], calibrated_on: str = ""
) -> StoredModel:
    """Returns a model whose convolutions compute in int8.

    Args:
      stored: a model of floating-point numbers.
      images: batches uint8 [N, H, W, 3], of one size, on which the ranges of the convolutions'
        inputs are measured: the means over the images of their least and greatest values.
      calibrated_on: what the images are, for `model.json`.

    Raises:
      DeepLabError: the model cannot be quantised, there is no image, or qwix is not installed.
    """
    check_quantizable(stored)
    model = stored.model
    ranges = calibrate(model, stored.variables, images)
    source = {
        name: value
        for name, value in stored.description.source.items()
        if name != "folded_batch_norm"
    }
    source["quantized"] = {
        "weights": "int8, a scale for every output channel",
        "activations": "int8, a scale and a zero point for every convolution's input",
        "library": f"qwix {importlib.metadata.version('qwix')}",
        "calibrated_on": calibrated_on,
    }
    description = dataclasses.replace(
        stored.description,
        overrides=stored.description.overrides | {"quantization": "int8"},
        source=source,
    )
    variables = quantized_variables(model, stored.variables, ranges)
    return StoredModel(description.create_model(), variables, description)


def check_quantizable(stored: StoredModel) -> None:
    """Checks before any work that a model can be quantised here.

    Raises:
      DeepLabError: it cannot, or qwix is not installed.
    """
    quantizer()
    if stored.description.task != SEGMENTATION:
        raise DeepLabError("only networks for segmentation are quantised, not classifiers")
    if stored.model.architecture.quantization != "none":
        raise DeepLabError("this model is quantised already; give the one that it was made of")


def calibrate(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[Path, Extremes]:
    """Returns the range of every convolution's input: mean of minima, mean of maxima.

    Means over images leave out the rare extremes that would cost all other values resolution.

    Args:
      model: of floating-point numbers.
      variables: of it.
      images: batches uint8 [N, H, W, C].

    Raises:
      DeepLabError: there is no image.
    """
    measure = input_statistics(model, _extremes)
    batches = [jax.device_get(measure(variables, batch)) for batch in images]
    if not batches:
        raise DeepLabError("quantisation needs at least one image to calibrate on")
    return {path: np.concatenate([batch[path] for batch in batches]).mean(0) for path in batches[0]}


def _extremes(inputs: jax.Array) -> jax.Array:
    """Returns [N, 2]: least and greatest value of each image's map."""
    return jnp.stack([jnp.min(inputs, (1, 2, 3)), jnp.max(inputs, (1, 2, 3))], axis=1)


def quantized_variables(
    model: DeepLab, variables: Any, ranges: Mapping[Path, Extremes]
) -> dict[str, Any]:
    """Returns the variables of the same network with `quantization="int8"`.

    Args:
      model, variables: of floating-point numbers.
      ranges: of every convolution's input; see `calibrate`.
    """
    folded = traverse_util.flatten_dict(fold(model, variables)[1]["params"])
    quantized: dict[Path, np.ndarray] = {}
    for path, extremes in ranges.items():
        bias = (*path, "norm", "bias") if (*path, "norm", "bias") in folded else (*path, "bias")
        layer = _quantized_layer(folded.pop((*path, "kernel")), folded.pop(bias), extremes)
        quantized |= {(*path, name): array for name, array in layer.items()}
    if folded:
        left = ", ".join("/".join(path) for path in folded)
        raise DeepLabError(f"these parameters were in no convolution that images reach: {left}")
    return {"params": traverse_util.unflatten_dict(quantized)}


def _quantized_layer(
    kernel: np.ndarray, bias: np.ndarray, extremes: Extremes
) -> dict[str, np.ndarray]:
    """Returns the parameters of a layer in integers; see layers/integers.py."""
    quantize_array = quantizer()
    weights = quantize_array(
        jnp.asarray(kernel, jnp.float32), jnp.int8, channelwise_axes=(OUTPUT_CHANNELS,)
    )
    inputs = quantize_array(
        jnp.asarray(extremes, jnp.float32), jnp.int8, calibration_method="minmax"
    )
    return {
        "kernel": np.asarray(weights.qvalue),
        "kernel_scale": np.asarray(weights.scale).reshape(-1),
        "bias": np.asarray(bias, np.float32),
        "input_scale": np.asarray(inputs.scale).reshape(()),
        "input_zero_point": np.asarray(inputs.zero_point).reshape(()),
    }


def quantization_aware(run: Run) -> Run:
    """Returns the run with a network that rounds kernels and inputs as int8 will.

    Its variables are the network's. Ranges are the batch's own: they are measured again, on their
    own images, when the trained network is quantised.
    """
    quantizer()
    return dataclasses.replace(run, model=run.model.clone(kind="rounded"))
