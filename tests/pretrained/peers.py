"""PyTorch codes that publish weights: imported if they are there, with variables that matter."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from deeplab_jax.pretrained import convert

# Of the largest logit. Ten times what was seen, a tenth of what would still be called the same.
TOLERANCE = 2e-5


@functools.cache
def peer(name: str) -> ModuleType:
    """Returns a module of another code, or skips the test and says why."""
    with warnings.catch_warnings():
        # Of their imports, which this project's rule about warnings is not for.
        warnings.simplefilter("ignore")
        try:
            if name.partition(".")[0] in ("torchvision", "timm", "transformers"):
                _prepare_torchvision()
            return importlib.import_module(name)
        except Exception as error:
            pytest.skip(f"{name} cannot be imported: {error!r}", allow_module_level=True)


@functools.cache
def _prepare_torchvision() -> Any:
    """Lets torchvision import beside a torch that its compiled operators are not for.

    Returns what keeps the operators' definitions.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        # transformers does without it.
        return None
    except RuntimeError:
        for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
    library = importlib.import_module("torch").library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def randomize(network: Any) -> Any:
    """Gives a PyTorch network, for inference, variables with which every layer matters."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if values.dtype.is_floating_point:
                values.copy_(_draw(name, values, generator))
    return network.eval()


def _draw(name: str, values: Any, generator: Any) -> Any:
    import torch

    if values.ndim > 1:
        return torch.randn(values.shape, generator=generator) * values[0].numel() ** -0.5
    if name.endswith(("weight", "running_var")):
        return 0.5 + torch.rand(values.shape, generator=generator)
    return 0.2 * torch.randn(values.shape, generator=generator)


def images(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Returns one random image, uint8 [1, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)


def channels_first(pixels: np.ndarray) -> Any:
    """Returns normalised pixels [N, H, W, C] as PyTorch takes them."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32))


def mean_std(image: np.ndarray) -> Any:
    """Returns an image normalised as torchvision documents it."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return channels_first((image / 255 - mean) / std)


def minus_one_one(image: np.ndarray) -> Any:
    """Returns an image in −1..1."""
    return channels_first((image / 255 - 0.5) / 0.5)


def caffe_bgr(image: np.ndarray) -> Any:
    """Returns an image in Caffe's order of channels, less the mean colour."""
    return channels_first(image[..., ::-1] - np.array([104.008, 116.669, 122.675]))


def assert_same_logits(
    source: Path,
    network: Callable[[Any], Any],
    normalize: Callable[[np.ndarray], Any],
    sizes: tuple[tuple[int, int], ...],
    endpoint: str = "",
    **options: Any,
) -> Any:
    """Converts a file and compares its network's logits with the PyTorch network's.

    Args:
      source: of the converted weights.
      network: normalised images → logits [N, K, H, W] or [N, K].
      normalize: images → what the network takes.
      sizes: (H, W) of the images.
      endpoint: which of our network's maps to compare instead of its logits.
      **options: of `convert`.

    Returns:
      The conversion.
    """
    import torch

    conversion = convert(source, **options)
    model = conversion.description.create_model()

    @jax.jit
    def ours(variables: Any, image: Any) -> Any:
        if endpoint:
            return model.apply(variables, image, endpoints=True)[1][endpoint]
        return model.apply(variables, image)

    for size in sizes:
        image = images(size)
        with torch.no_grad():
            expected = network(normalize(image)).numpy()
        if expected.ndim == 4:
            expected = expected.transpose(0, 2, 3, 1)
        found = np.asarray(ours(conversion.variables, image))
        assert found.shape == expected.shape
        assert np.abs(expected).max() > 0.01
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        assert difference < TOLERANCE, f"{size}: {difference:.2g}"
    return conversion
