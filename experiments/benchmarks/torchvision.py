"""Baseline: DeepLab v3 of torchvision, with the same weights as the network of deeplab_jax."""

from collections.abc import Callable
from typing import Any

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.models import DeepLab, create_model
from deeplab_jax.models.preprocessing import TORCHVISION_MEAN, TORCHVISION_STD
from deeplab_jax.models.summary import summarize
from experiments.benchmarks.baselines import Match, Workload, relative_difference
from experiments.benchmarks.pytorch import RATE, PyTorch, import_library, open_pytorch
from experiments.benchmarks.weights import converted

NAME = "torchvision"
NUM_CLASSES = 21
AUXILIARY_WEIGHT = 0.5


def forward(work: Workload) -> Match:
    """Returns forward passes of deeplab_jax and of torchvision, ready to be timed."""
    # In PyTorch, an auxiliary head would also run in forward passes.
    pytorch, theirs = _network(work, auxiliary=False)
    image = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)["image"]
    model, variables = converted(pytorch.torch, theirs, dtype=work.dtype)
    pixels = pytorch.pixels(image, TORCHVISION_MEAN, TORCHVISION_STD)
    mine = ours.forward(model, variables, image, work.folded)
    other = pytorch.forward(NAME, theirs, lambda pixels: theirs(pixels)["out"], pixels)
    return Match(
        work.title("forward"),
        mine,
        other,
        ours.forward_operations(model, image),
        relative_difference(mine.run(), pytorch.numpy(other.run())),
        pytorch.size(theirs, pixels),
        summarize(model, work.size).parameters,
    )


def training(work: Workload) -> Match:
    """Returns training steps of deeplab_jax and of torchvision, both with an auxiliary head."""
    pytorch, theirs = _network(work, auxiliary=True)
    batch = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)
    model, variables = converted(pytorch.torch, theirs, dtype=work.dtype)
    pixels = pytorch.pixels(batch["image"], TORCHVISION_MEAN, TORCHVISION_STD)

    def loss(pixels: Any, cross_entropy: Callable[[Any], Any]) -> Any:
        outputs = theirs(pixels)
        return cross_entropy(outputs["out"]) + AUXILIARY_WEIGHT * cross_entropy(outputs["aux"])

    return Match(
        work.title("training step"),
        ours.training_step(model, variables, batch, RATE),
        pytorch.training_step(NAME, theirs, loss, (pixels, batch["label"])),
        3 * ours.forward_operations(model, batch["image"]),
    )


def our_network(work: Workload) -> DeepLab:
    """Returns the network of deeplab_jax for a workload, without importing PyTorch."""
    return create_model(f"{NAME}/{work.network}", num_classes=NUM_CLASSES, dtype=work.dtype)


def _network(work: Workload, auxiliary: bool) -> tuple[PyTorch, Any]:
    pytorch = open_pytorch(work)
    make = getattr(import_library("torchvision.models.segmentation"), work.network)
    network = make(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, aux_loss=auxiliary)
    return pytorch, pytorch.placed(network)
