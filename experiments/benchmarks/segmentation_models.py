"""Baseline: DeepLab v3+ of segmentation_models_pytorch at output stride 16.

The baseline and the network of deeplab_jax have random weights. They have the same convolutions,
except for a separable convolution after the projection of ASPP, which only the baseline has (0.1 %
of the multiply-adds).

The following command times forward passes. ENCODER is the name of an encoder, such as resnet50 or
tu-convnext_tiny; `baselines.BASELINES` lists the names. With --compiled, the baseline runs with
`torch.compile`. No other program should run on the machine.

  python -m experiments.benchmarks forward --baseline=segmentation_models --network=ENCODER \\
    --size=512x512 --repetitions=15
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import DeepLab, create_model
from deeplab_jax.models.preprocessing import TORCHVISION_MEAN, TORCHVISION_STD
from deeplab_jax.models.summary import summarize
from experiments.benchmarks.baselines import Match, Workload
from experiments.benchmarks.pytorch import RATE, PyTorch, import_library, open_pytorch

NAME = "segmentation_models_pytorch"
NUM_CLASSES = 21
RATES = (12, 24, 36)
OUTPUT_STRIDE = 16
# Backbones of deeplab_jax, by the name of the baseline. Other backbones `tu-NAME` are `timm/NAME`.
BACKBONES = {
    "resnet50": "resnet_50",
    "resnet101": "resnet_101",
    "mobilenet_v2": "mobilenet_v2",
    "tu-xception65": "xception_65",
}


def forward(work: Workload) -> Match:
    """Returns forward passes of deeplab_jax and of segmentation_models_pytorch.

    Raises:
      DeepLabError: the library is not installed, or a side of the images is not a multiple of 16.
    """
    pytorch, theirs = _network(work)
    image = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)["image"]
    model = our_network(work)
    variables = ours.made_variables(model)
    pixels = _pixels(pytorch, image)
    return Match(
        f"DeepLab v3+ {work.title('forward')}",
        ours.forward(model, variables, image, work.folded),
        pytorch.forward(NAME, theirs, theirs, pixels),
        ours.forward_operations(model, image),
        baseline_size=pytorch.size(theirs, pixels),
        parameters=summarize(model, work.size).parameters,
    )


def training(work: Workload) -> Match:
    """Returns training steps of deeplab_jax and of segmentation_models_pytorch.

    Raises:
      DeepLabError: the library is not installed, or a side of the images is not a multiple of 16.
    """
    pytorch, theirs = _network(work)
    batch = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)
    model = our_network(work)
    variables = ours.made_variables(model)

    def loss(pixels: Any, cross_entropy: Callable[[Any], Any]) -> Any:
        return cross_entropy(theirs(pixels))

    pixels = _pixels(pytorch, batch["image"])
    return Match(
        f"DeepLab v3+ {work.title('training step')}",
        ours.training_step(model, variables, batch, RATE),
        pytorch.training_step(NAME, theirs, loss, (pixels, batch["label"])),
        3 * ours.forward_operations(model, batch["image"]),
    )


def _network(work: Workload) -> tuple[PyTorch, Any]:
    if any(length % OUTPUT_STRIDE for length in work.size):
        raise DeepLabError(
            f"{NAME} requires image sides that are multiples of {OUTPUT_STRIDE}, as in "
            "--size=512x512"
        )
    pytorch = open_pytorch(work)
    library = import_library(NAME, "segmentation-models-pytorch")
    network = library.DeepLabV3Plus(
        work.network,
        encoder_weights=None,
        encoder_output_stride=OUTPUT_STRIDE,
        decoder_atrous_rates=RATES,
        classes=NUM_CLASSES,
    )
    return pytorch, pytorch.placed(network)


def _pixels(pytorch: PyTorch, image: np.ndarray) -> Any:
    return pytorch.pixels(image, TORCHVISION_MEAN, TORCHVISION_STD)


def our_network(work: Workload) -> DeepLab:
    """Returns the network of deeplab_jax for a workload, without importing PyTorch."""
    backbone = BACKBONES.get(work.network, work.network.replace("tu-", "timm/", 1))
    # Xception and the networks of timm have only one placement of strides.
    fixed = backbone == "xception_65" or backbone.startswith("timm/")
    placement = {} if fixed else {"stride_placement": "torchvision"}
    return create_model(
        "deeplab_v3plus",
        backbone=backbone,
        **placement,
        num_classes=NUM_CLASSES,
        output_stride=OUTPUT_STRIDE,
        preprocessing="mean_std",
        align_corners=True,
        batch_norm_decay=0.9,
        atrous_rates=RATES,
        separable=True,
        decoder_convs=((3, 256),),
        dropout_rate=0.5,
        dtype=work.dtype,
    )
