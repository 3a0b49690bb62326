"""Cost of a network: parameters, multiply-adds of its evaluation, chip-hours of its training."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping

from deeplab_jax.models import Architecture, DeepLab, summarize
from deeplab_jax.models.output_stride import rates_at_output_stride
from deeplab_jax.ops import scaled_size
from deeplab_jax.training.checkpoints import network_of as config_network
from experiments.cases import Case, ResolvedTraining
from experiments.storage import read_json, write_json

# The forward pass once, the backward pass twice; a multiply-add is two operations.
OPERATIONS = 2 * 3
# Sustained operations per second of the chip that estimates assume.
CHIP_OPERATIONS = 100e12
# Image size for which the papers count multiply-adds.
SIZE = (513, 513)
CLASSES = {
    "cityscapes": 19,
    "pascal_context": 60,
    "pascal_person_part": 7,
    "camvid": 11,
    "shapes": 6,
}


@dataclasses.dataclass(frozen=True)
class Counter:
    """Counts networks once each and keeps the numbers in a file.

    Attributes:
      path: of the file; None: kept nowhere.
    """

    path: pathlib.Path | None = None

    def count(self, network: Architecture, size: tuple[int, int]) -> Mapping[str, int]:
        """Returns `parameters`, `macs` and `macs_tf_convention` on an image (H, W)."""
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
    """Returns the network of a training, with its dataset's number of classes."""
    config = training.config
    return config_network(config, CLASSES.get(config.data.name, 21))


def evaluated_network(case: Case) -> tuple[Architecture, list[tuple[int, int]], bool]:
    """Returns the network at the output stride of evaluation, the sizes it sees, and the flip."""
    network, stride = network_of(case.training), case.options.output_stride
    if stride not in (None, network.output_stride):
        rates = rates_at_output_stride(network, stride)
        network = dataclasses.replace(network, output_stride=stride, atrous_rates=rates)
    sizes = [scaled_size(SIZE, scale) for scale in case.options.scales]
    return network, sizes, case.options.flip


def multiply_adds(case: Case, counter: Counter) -> float:
    """Returns billions of multiply-adds of one 513 × 513 image, as TensorFlow counts them."""
    network, sizes, flip = evaluated_network(case)
    total = sum(counter.count(network, size)["macs_tf_convention"] for size in sizes)
    return total * (2 if flip else 1) / 1e9


def parameters(case: Case, counter: Counter) -> float:
    """Returns millions of trainable numbers."""
    return counter.count(network_of(case.training), (65, 65))["parameters"] / 1e6


def chip_hours(training: ResolvedTraining, counter: Counter) -> float:
    """Returns an estimate of a training's hours on one chip of `CHIP_OPERATIONS`.

    Without what it starts from, reading data, and evaluation.
    """
    config = training.config
    macs = counter.count(network_of(training), tuple(config.augmentation.crop_size))["macs"]
    images = config.training.num_steps * config.training.batch_size
    return images * macs * OPERATIONS / CHIP_OPERATIONS / 3600


COSTS: Mapping[str, Callable[[Case, Counter], float]] = {
    "GMAdds": multiply_adds,
    "Mparams": parameters,
}
