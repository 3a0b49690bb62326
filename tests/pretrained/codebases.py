"""Networks of other DeepLab codebases: names, shapes and variables without their code.

The folder `listings` has one file per network, and `codebases.json` the logits of the original code
at a few pixels. `write_codebases.py` writes both.
"""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

HERE = pathlib.Path(__file__).parent
LISTINGS, LOGITS = HERE / "listings", HERE / "codebases.json"
NORM = ("weight", "bias", "running_mean", "running_var")
CLASSES = 5
EVEN, ODD = (64, 96), (65, 97)


class Network(NamedTuple):
    """A network of another codebase.

    Attributes:
      architecture: architecture that it is converted to.
      sizes: (H, W) of the images.
      overrides: keywords that the names do not show.
      found: some keywords that they do.
      slow: whether its comparison is slow.
    """

    architecture: str
    sizes: tuple[tuple[int, int], ...] = (EVEN, ODD)
    overrides: Mapping[str, Any] = {}
    found: Mapping[str, Any] = {}
    slow: bool = True


V3, V3_PLUS = "deeplab_v3", "deeplab_v3plus"
# Images of segmentation_models.pytorch have sides that are multiples of the output stride.
MULTIPLES = ((64, 96), (80, 112))
NETWORKS = {
    "smp_v3_resnet18": Network(
        V3, MULTIPLES, found={"backbone": "resnet_18", "output_stride": 8, "refine": True}
    ),
    "smp_v3plus_resnet50": Network(
        V3_PLUS, MULTIPLES, found={"backbone": "resnet_50", "separable_norm": False}
    ),
    "smp_v3plus_mobilenet_v2": Network(
        V3_PLUS, MULTIPLES, found={"last_convolution": True, "rate_start": "same_unit"}, slow=False
    ),
    "vainf_v3plus_mobilenet": Network(
        V3_PLUS, found={"pad_first_convolution": False, "align_corners": False}, slow=False
    ),
    "vainf_v3_resnet50_os8": Network(V3, overrides={"output_stride": 8}),
    "vainf_v3plus_mobilenet_separable": Network(V3_PLUS, found={"separable": True}),
    "jfzhang95_mobilenet": Network(
        V3_PLUS,
        found={"rate_start": "next_stage", "decoder_dropout": (0.5, 0.1), "align_corners": True},
        slow=False,
    ),
    "jfzhang95_resnet": Network(V3_PLUS, found={"multi_grid": (1, 2, 4)}),
    "mmseg_v3_resnet50": Network(
        V3, found={"backbone": "timm/resnet50c", "aspp_channels": 512, "aux_head": True}
    ),
    "mmseg_v3plus_resnet50_d16_mg124": Network(
        V3_PLUS, overrides={"output_stride": 16, "multi_grid": (1, 1, 2)}
    ),
    "mmseg_v3plus_mobilenet": Network(
        V3_PLUS, found={"projection_size": 3, "aspp_channels": 64, "output_stride": 8}
    ),
}


def read_listing(name: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the floating-point arrays of a network by name."""
    shapes = {}
    for line in (LISTINGS / f"{name}.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        scope, *kind, shape = line.split()
        names = [f"{scope}.{leaf}" for leaf in NORM] if kind else [scope]
        shapes |= dict.fromkeys(names, tuple(map(int, shape.split(","))))
    return shapes


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns random values of an array, by its name; every layer and statistic matters."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        fan_in = int(np.prod(shape[1:]))
        values = generator.standard_normal(shape) * fan_in**-0.5
    elif name.endswith(("weight", "running_var")):
        values = 0.5 + generator.random(shape)
    else:
        values = 0.2 * generator.standard_normal(shape)
    return values.astype(np.float32)


def logits_of(name: str) -> dict[tuple[int, int], np.ndarray]:
    """Returns the logits of the original code, [pixels, classes], by (H, W)."""
    recorded = json.loads(LOGITS.read_text())[name]
    return {tuple(map(int, size.split("x"))): np.array(values) for size, values in recorded.items()}


def at_pixels(logits: np.ndarray) -> np.ndarray:
    """Returns the logits [H, W, K] at a few pixels, [pixels, K]."""
    height, width = logits.shape[:2]
    rows = np.array([0, 1, height // 2, height - 7, height - 1])
    columns = np.array([0, width - 1, width // 3, 5, width - 1])
    return logits[rows, columns]
