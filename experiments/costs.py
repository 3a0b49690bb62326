"""Costs of a network: parameters, multiply-adds of inference, and chip-hours of training."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping

from deeplab_jax.models import Architecture, DeepLab, summarize
from deeplab_jax.models.output_stride import rates_at_output_stride
from deeplab_jax.ops import scaled_size
from deeplab_jax.planning.dataset_stub import KNOWN
from deeplab_jax.training.workdir import network_of as config_network
from experiments.cases import Case, ResolvedTraining
from experiments.storage import read_json, write_json

# Floating-point operations of a training step for each multiply-add of its forward pass. A
# multiply-add is 2 operations, and the backward pass costs as much as 2 forward passes.
OPERATIONS = 2 * 3
# Floating-point operations per second that a chip is assumed to sustain, for chip-hours.
CHIP_OPERATIONS = 100e12
# Image size (H, W), in pixels, for which the papers report multiply-adds.
SIZE = (513, 513)
# Number of classes of datasets that are neither supported nor named in the config.
OTHERS = 21


@dataclasses.dataclass(frozen=True)
class Counter:
    """Counts the parameters and multiply-adds of networks, and caches the counts in a file.

    Attributes:
      path: path of the cache file; None: no file.
    """

    path: pathlib.Path | None = None

    def count(self, network: Architecture, size: tuple[int, int]) -> Mapping[str, int]:
        """Returns `parameters`, `macs` and `macs_tf_convention` for an image of size (H, W).

        `macs` is the number of multiply-adds. `macs_tf_convention` is their number in the
        convention of TensorFlow, which pads the feature maps of atrous convolutions.
        """
        identity = json.dumps([network.describe(), size], sort_keys=True, default=str)
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        known = (read_json(self.path) if self.path else None) or {}
        if key not in known:
            known[key] = _count(network, size)
            if self.path:
                write_json(self.path, known)
        return known[key]


@functools.cache
def _count(network: Architecture, size: tuple[int, int]) -> dict[str, int]:
    summary = summarize(DeepLab(network), size)
    fields = ("parameters", "macs", "macs_tf_convention")
    return {field: getattr(summary, field) for field in fields}


def network_of(training: ResolvedTraining) -> Architecture:
    """Returns the network of a training run; its number of classes is that of the dataset."""
    config = training.config
    known = KNOWN.get(config.data.name)
    names = config.data.class_names or (known.class_names if known else range(OTHERS))
    return config_network(config, len(names))


def evaluated_network(case: Case) -> tuple[Architecture, list[tuple[int, int]], bool]:
    """Returns the network, the image sizes and the flips that a case evaluates.

    Returns:
      The network at the output stride of the evaluation, the size (H, W) of a 513 × 513 image at
      every scale, and whether flipped images are also predicted.
    """
    network, stride = network_of(case.training), case.options.output_stride
    if stride not in (None, network.output_stride):
        rates = rates_at_output_stride(network, stride)
        network = dataclasses.replace(network, output_stride=stride, atrous_rates=rates)
    sizes = [scaled_size(SIZE, scale) for scale in case.options.scales]
    return network, sizes, case.options.flip


def multiply_adds(case: Case, counter: Counter) -> float:
    """Returns the multiply-adds of inference on one 513 × 513 image, in billions.

    They are summed over scales and flips. As in the papers, they are counted in the convention of
    TensorFlow, which pads the feature maps of atrous convolutions.
    """
    network, sizes, flip = evaluated_network(case)
    total = sum(counter.count(network, size)["macs_tf_convention"] for size in sizes)
    return total * (2 if flip else 1) / 1e9


def parameters(case: Case, counter: Counter) -> float:
    """Returns the number of parameters of the network, in millions."""
    return counter.count(network_of(case.training), (65, 65))["parameters"] / 1e6


def chip_hours(training: ResolvedTraining, counter: Counter) -> float:
    """Returns the estimated hours of a training run on one chip.

    The chip is assumed to sustain 10¹⁴ floating-point operations per second. Training of the
    initial weights, data loading and evaluation are not included.
    """
    config = training.config
    macs = counter.count(network_of(training), tuple(config.augmentation.crop_size))["macs"]
    images = config.training.num_steps * config.training.batch_size
    return images * macs * OPERATIONS / CHIP_OPERATIONS / 3600


COSTS: Mapping[str, Callable[[Case, Counter], float]] = {
    "GMAdds": multiply_adds,
    "Mparams": parameters,
}
