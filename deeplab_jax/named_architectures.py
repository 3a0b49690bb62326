"""Keywords that each named architecture sets, and keywords that each backbone accepts.

This module imports neither JAX nor Flax, so commands that only check names are fast.
"""

from collections.abc import Mapping
from typing import Any

from deeplab_jax.architecture_fields import KEYWORDS
from deeplab_jax.errors import check_name
from deeplab_jax.formats import MODEL, unknown_field

TORCHVISION = {
    "output_stride": 8,
    "dropout_rate": 0.5,
    "refine": True,
    "aux_head": True,
    "stride_placement": "torchvision",
    "align_corners": False,
    "preprocessing": "mean_std",
    "batch_norm_decay": 0.9,
}
# Keywords that each architecture sets, unless the caller sets them.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "deeplab_v1": {
        "backbone": "vgg_16",
        "output_stride": 8,
        "head": "large_fov",
        "image_pooling": "none",
        "dropout_rate": 0.5,
    },
    "deeplab_v2": {
        "backbone": "resnet_101",
        "output_stride": 8,
        "image_pooling": "none",
        "dropout_rate": 0.5,
    },
    "deeplab_v3": {"backbone": "resnet_101_beta"},
    "deeplab_v3plus": {"backbone": "xception_65", "decoder": "v3plus"},
    "torchvision/deeplabv3_resnet50": TORCHVISION | {"backbone": "resnet_50"},
    "torchvision/deeplabv3_resnet101": TORCHVISION | {"backbone": "resnet_101"},
    "torchvision/deeplabv3_mobilenet_v3_large": TORCHVISION
    | {"backbone": "mobilenet_v3_large", "output_stride": 16},
}
SUMMARIES = {
    "deeplab_v1": "VGG-16 with a large field of view (arXiv 1412.7062)",
    "deeplab_v2": "ASPP as a sum of scores (arXiv 1606.00915)",
    "deeplab_v3": "ASPP with concatenation and image pooling, or a cascade (arXiv 1706.05587)",
    "deeplab_v3plus": "DeepLab v3 with a decoder (arXiv 1802.02611)",
    "torchvision/deeplabv3_resnet50": "DeepLab v3 in torchvision's conventions, on ResNet-50",
    "torchvision/deeplabv3_resnet101": "DeepLab v3 in torchvision's conventions, on ResNet-101",
    "torchvision/deeplabv3_mobilenet_v3_large": "DeepLab v3 in torchvision's conventions, on "
    "MobileNetV3",
}
# Keywords that each backbone uses. The networks are in deeplab_jax/backbones/entries.py, in the
# same order.
_RESNET = ("multi_grid", "stride_placement", "rate_start", "cascade_blocks", "stochastic_depth")
_TIMM_RESNET = ("multi_grid", "rate_start", "cascade_blocks", "stochastic_depth")
_CONVNEXT_SMALL = ("atto", "femto", "pico", "nano")
_EFFICIENTNETS = (
    *(f"efficientnet_b{size}" for size in range(5)),
    *(f"efficientnet_lite{size}" for size in range(5)),
    *("efficientnetv2_s", "efficientnetv2_m"),
)
BACKBONE_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "vgg_16": (),
    **{f"resnet_{depth}": _RESNET for depth in (18, 50, 101)},
    **{f"resnet_{depth}_beta": _RESNET for depth in (18, 50, 101)},
    **{f"xception_{depth}": () for depth in (41, 65, 71)},
    "mobilenet_v2": (
        *("depth_multiplier", "width_divisor", "stride_placement", "rate_start"),
        *("last_convolution", "pad_first_convolution", "pad_before_expansion"),
    ),
    **{
        f"mobilenet_v3_{form}": ("depth_multiplier", "stride_placement")
        for form in ("large", "large_seg", "small", "small_seg")
    },
    **{f"timm/{name}": _TIMM_RESNET for name in ("resnet34", "resnet152")},
    **{f"timm/resnet{depth}c": _TIMM_RESNET for depth in (50, 101)},
    **{f"timm/resnet{depth}d": _TIMM_RESNET for depth in (18, 34, 50, 101)},
    "timm/resnext50_32x4d": _TIMM_RESNET,
    **{
        f"timm/{name}": ("stochastic_depth",)
        for name in (
            *(f"convnext_{size}" for size in (*_CONVNEXT_SMALL, "tiny", "small", "base")),
            *(f"convnextv2_{size}" for size in (*_CONVNEXT_SMALL, "tiny", "base")),
            *(f"regnety_{size}" for size in ("002", "008", "016", "040", "080", "160")),
        )
    },
    **{
        f"timm/{name}": ("rate_start", "stochastic_depth")
        for name in (
            *_EFFICIENTNETS,
            *(f"tf_{name}" for name in _EFFICIENTNETS),
            *(
                f"mobilenetv4_conv_{size}"
                for size in ("small_035", "small_050", "small", "medium", "large")
            ),
        )
    },
}


def check_names(architecture: str, overrides: Mapping[str, Any]) -> None:
    """Checks that an architecture and the keywords in `overrides` exist; does not check values.

    Raises:
      DeepLabError: a name is unknown; the message suggests the most similar legal name.
    """
    check_name("architecture", architecture, ARCHITECTURES)
    for name in overrides:
        if name not in KEYWORDS:
            raise unknown_field(f"keyword of {architecture}", name, KEYWORDS, MODEL)


def list_models() -> dict[str, str]:
    """Returns a one-line summary of every architecture, by name."""
    return dict(SUMMARIES)
