"""Keywords of every kind of head, decoder and fusion of scales."""

from typing import Any

# Valid for `deeplab_v3` on every backbone.
HEADS: dict[str, dict[str, Any]] = {
    "large_fov": {"head": "large_fov"},
    "large_fov_4x4": {"head": "large_fov", "fov": "4x4"},
    "large_fov_direct": {"head": "large_fov", "fc_channels": 0},
    "summed": {"fusion": "sum"},
    "summed_fc": {"fusion": "sum", "fc_channels": 16},
    "aspp": {"head": "aspp"},
    "separable": {"head": "aspp", "separable": True},
    "aspp_crop": {"head": "aspp", "image_pooling": "crop", "pooling_crop": (33, 33)},
    "pooling": {"head": "pooling"},
    "plain": {"head": "plain"},
    "spp": {"head": "spp"},
    "lr_aspp": {"head": "lr_aspp"},
    "dpc": {"head": "dpc"},
    "v3plus": {"decoder": "v3plus"},
    "conv2_conv3": {"decoder": "conv2_conv3"},
    "msc": {"decoder": "msc"},
    "multi_scale": {"multi_scale": (1, 0.75, 0.5)},
    "torchvision": {"aux_head": True, "refine": True, "align_corners": False},
}
