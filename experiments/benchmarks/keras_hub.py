"""Baseline: DeepLab v3+ of keras-hub on JAX, with ResNet-50 at output stride 32.

This is the network of keras-hub's published preset. It is compared with a network of deeplab_jax.
Both have random weights and the same convolutions, but keras-hub applies the classifier after the
last upsampling.
"""

import importlib
import os
from typing import Any

import jax
import numpy as np

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.networks import compiled_contender
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model
from experiments.benchmarks.baselines import Match, Workload

NAME = "keras-hub on JAX"
NUM_CLASSES = 21
RATES = (6, 12, 18)
OUTPUT_STRIDE = 32


def forward(work: Workload) -> Match:
    """Returns forward passes of deeplab_jax and of keras-hub, ready to be timed.

    Raises:
      DeepLabError: keras-hub is not installed, Keras does not run on JAX, or a side of the images
        is not a multiple of 32.
    """
    if any(length % OUTPUT_STRIDE for length in work.size):
        raise DeepLabError(
            f"keras-hub requires image sides that are multiples of {OUTPUT_STRIDE}, as in "
            "--size=512x512"
        )
    theirs = _network(work.size)
    image = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)["image"]
    model = create_model(
        "deeplab_v3plus",
        backbone="resnet_50",
        stride_placement="torchvision",
        num_classes=NUM_CLASSES,
        output_stride=OUTPUT_STRIDE,
        atrous_rates=RATES,
        decoder_convs=((1, 256),),
        align_corners=False,
    )
    variables = jax.jit(model.init)(jax.random.key(0), image)
    state = [[variable.value for variable in group] for group in _variables(theirs)]

    def stateless(state: Any, image: jax.Array) -> jax.Array:
        return theirs.stateless_call(*state, image.astype(np.float32), training=False)[0]

    return Match(
        f"DeepLab v3+ {work.title('forward at output stride 32')}",
        ours.forward(model, variables, image),
        compiled_contender(NAME, stateless, state, image),
        ours.forward_operations(model, image),
    )


def _variables(network: Any) -> tuple[list[Any], list[Any]]:
    return network.trainable_variables, network.non_trainable_variables


def _network(size: tuple[int, int]) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        models = importlib.import_module("keras_hub.models")
        backend = importlib.import_module("keras.backend").backend()
    except ImportError as error:
        raise DeepLabError(
            f"this baseline requires keras-hub ({error}); run pip install keras-hub"
        ) from None
    if backend != "jax":
        raise DeepLabError(
            f"this baseline requires Keras on JAX, but Keras runs on {backend}; "
            "set KERAS_BACKEND=jax"
        )
    encoder = models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(*size, 3),
    )
    backbone = models.DeepLabV3Backbone(
        image_encoder=encoder,
        projection_filters=48,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=list(RATES),
        image_shape=(*size, 3),
    )
    return models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=NUM_CLASSES)
