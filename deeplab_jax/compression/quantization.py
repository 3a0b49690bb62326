"""Post-training quantization to 8-bit integers, and quantization-aware training."""

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

# Minimum and maximum of the input of a convolution, float [2].
Extremes = np.ndarray


def quantize(
    stored: StoredModel, images: Iterable[np.ndarray], calibrated_on: str = ""
) -> StoredModel:
    """Returns a quantized copy of a model, with int8 convolutions.

    Args:
      stored: model in floating point.
      images: calibration images, in batches [N, H, W, C]. The ranges of the inputs of convolutions
        are measured on these images.
      calibrated_on: description of the images, which is stored in `model.json`.

    Raises:
      DeepLabError: the model is a classifier or already quantized, it has a kernel that no
        convolution uses, there is no image, or qwix is not installed.
    """
    check_quantizable(stored)
    model = stored.model
    ranges = calibrate(model, stored.variables, images)
    source = dict(stored.description.source)
    source.pop("folded_batch_norm", None)
    source["quantized"] = {
        "weights": "int8, a scale for every output channel",
        "activations": "int8, a scale and a zero point for every convolution's input",
        "library": f"qwix {importlib.metadata.version('qwix')}",
        "calibrated_on": calibrated_on,
    }
    variables = quantized_variables(model, stored.variables, ranges)
    return stored.changed(variables, {"quantization": "int8"}, source)


def check_quantizable(stored: StoredModel) -> None:
    """Checks that a model is a segmentation network in floating point, and that qwix is installed.

    Raises:
      DeepLabError: the model is a classifier or already quantized, or qwix is not installed.
    """
    quantizer()
    if stored.description.task != SEGMENTATION:
        raise DeepLabError(
            "a model that classifies whole images cannot be quantized; give a segmentation model"
        )
    if stored.model.architecture.quantization != "none":
        raise DeepLabError("the model is already quantized; give a model in floating point")


def calibrate(model: DeepLab, variables: Any, images: Iterable[np.ndarray]) -> dict[Path, Extremes]:
    """Returns the range of the input of every convolution, measured on calibration images.

    The minimum and the maximum of the input are measured for each image, and averaged over the
    images. Averaging reduces the effect of rare extreme values, which would make the quantization
    steps larger.

    Args:
      model: network in floating point.
      variables: variables of the network.
      images: batches [N, H, W, C].

    Raises:
      DeepLabError: `images` is empty.
    """
    measure = input_statistics(model, _extremes)
    batches = [jax.device_get(measure(variables, batch)) for batch in images]
    if not batches:
        raise DeepLabError("quantization requires at least one image for calibration; got none")
    return {path: np.concatenate([batch[path] for batch in batches]).mean(0) for path in batches[0]}


def _extremes(inputs: jax.Array) -> jax.Array:
    """Returns the minimum and maximum over rows, columns and channels of each image, [N, 2]."""
    return jnp.stack([jnp.min(inputs, (1, 2, 3)), jnp.max(inputs, (1, 2, 3))], axis=1)


def quantized_variables(
    model: DeepLab, variables: Any, ranges: Mapping[Path, Extremes]
) -> dict[str, Any]:
    """Returns the variables that a network has with the keyword `quantization="int8"`.

    Batch normalization is folded into the convolutions, whose kernels become int8. Parameters of
    layer normalizations and layer scales stay in floating point.

    Args:
      model, variables: network and its variables, in floating point.
      ranges: range of the input of every convolution; see `calibrate`.

    Raises:
      DeepLabError: `ranges` has no entry for a kernel, because no convolution uses this kernel.
    """
    folded = traverse_util.flatten_dict(fold(model, variables)[1]["params"])
    quantized: dict[Path, np.ndarray] = {}
    for path, extremes in ranges.items():
        bias = (*path, "norm", "bias") if (*path, "norm", "bias") in folded else (*path, "bias")
        kernel = folded.pop((*path, "kernel"))
        # A depthwise convolution without normalization has no bias.
        zeros = np.zeros(kernel.shape[OUTPUT_CHANNELS], np.float32)
        layer = _quantized_layer(kernel, folded.pop(bias, zeros), extremes)
        quantized |= {(*path, name): array for name, array in layer.items()}
    if left := ["/".join(path) for path in folded if path[-1] == "kernel"]:
        raise DeepLabError(
            "this network cannot be quantized, because no convolution uses the kernels "
            f"{', '.join(left)}; give another model"
        )
    quantized |= {path: np.asarray(array, np.float32) for path, array in folded.items()}
    return {"params": traverse_util.unflatten_dict(quantized)}


def _quantized_layer(
    kernel: np.ndarray, bias: np.ndarray, extremes: Extremes
) -> dict[str, np.ndarray]:
    """Returns the parameters of a quantized convolution, by their names in the quantized network.

    Args:
      kernel, bias: in floating point, after batch normalization has been folded into them.
      extremes: range of the input of the convolution.
    """
    values, bounds = (jnp.asarray(array, jnp.float32) for array in (kernel, extremes))
    weights = quantizer()(values, jnp.int8, channelwise_axes=(OUTPUT_CHANNELS,))
    inputs = quantizer()(bounds, jnp.int8, calibration_method="minmax")
    return {
        "kernel": np.asarray(weights.qvalue),
        "kernel_scale": np.asarray(weights.scale).reshape(-1),
        "bias": np.asarray(bias, np.float32),
        "input_scale": np.asarray(inputs.scale).reshape(()),
        "input_zero_point": np.asarray(inputs.zero_point).reshape(()),
    }


def quantization_aware(run: Run) -> Run:
    """Returns a run that trains a network with simulated int8 rounding of kernels and inputs.

    The trained variables stay in floating point. During training, the ranges of the inputs of
    convolutions are measured on each batch. When `quantize` is called on the trained model, it
    measures these ranges again on the calibration images.
    """
    quantizer()
    adjustments = run.adjustments | {"quantization_aware": True}
    return dataclasses.replace(run, model=run.model.clone(kind="rounded"), adjustments=adjustments)
