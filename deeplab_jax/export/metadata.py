"""Metadata of an exported file: how to feed it and how to read its output."""

import dataclasses
import importlib.metadata
import json
from typing import Any

import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.program import Program
from deeplab_jax.models import preprocessing

KEY = "deeplab_jax"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Travels in every exported file as JSON.

    Attributes:
      class_names: of the classes, in order.
      palette: RGB 0..255, one a class.
      input: `dtype`, `shape` (None where any number is legal), `range` (of RGB), and
        `normalization`: `inside`, or `scale` and `offset` of each channel of RGB, or BGR where
        `channels` says so: value · scale + offset is what the function takes.
      sizes: `step` and `plus`: heights and widths of k · step + plus suit the network, k ≥ 1;
        `largest`: (H, W) that files of earlier versions are limited to, or None.
      output: `dtype`, `shape` and `meaning`.
      source: where the weights came from.
      version: of deeplab_jax.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    input: dict[str, Any]
    sizes: dict[str, Any]
    output: dict[str, Any]
    source: str
    version: str

    def to_json(self) -> str:
        """Returns the text that is stored."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def normalized(self, images: np.ndarray) -> np.ndarray:
        """Returns what the function takes.

        Args:
          images: uint8 [N, H, W, C], RGB 0..255.
        """
        given = self.input["normalization"]
        if given == "inside":
            return images
        ordered = images[..., ::-1] if given["channels"] == "BGR" else images
        return ordered * np.float32(given["scale"]) + np.float32(given["offset"])


def describe(program: Program) -> Metadata:
    """Returns the metadata of what a program becomes."""
    options, predictor = program.options, program.predictor
    architecture = predictor.model.architecture
    height, width = options.size or (None, None)
    step, plus = program.step
    outer = [options.batch, height, width]
    return Metadata(
        class_names=predictor.class_names,
        palette=predictor.palette,
        input={
            "name": "image",
            "dtype": str(options.input_dtype),
            "shape": [*outer, architecture.in_channels],
            "normalization": "inside"
            if options.preprocessing
            else normalization(architecture.preprocessing, architecture.in_channels),
        },
        # Files of earlier versions had a largest size; readers may look for it.
        sizes={
            "step": step,
            "plus": plus,
            "largest": None,
            "fill": list(architecture.mean_pixel),
        },
        output={
            "name": "class_map" if options.argmax else "logits",
            "dtype": "int32" if options.argmax else "float32",
            "shape": outer if options.argmax else [*outer, architecture.num_classes],
            "meaning": "class of every pixel" if options.argmax else "logits of every pixel",
        },
        source=predictor.source,
        version=importlib.metadata.version("deeplab_jax"),
    )


def normalization(name: str, channels: int) -> dict[str, Any]:
    """Returns what turns RGB 0..255 into what the network takes: value · scale + offset.

    Args:
      name: of the preprocessing.
      channels: of the image.
    """
    order, scale, offset = "RGB", [1.0] * channels, [0.0] * channels
    match name:
        case "minus_one_one":
            scale, offset = [2 / 255] * channels, [-1.0] * channels
        case "mean":
            offset = [-value for value in preprocessing.SLIM_MEAN]
        case "vgg_mean":
            offset = [-value for value in preprocessing.VGG_MEAN]
        case "caffe_bgr":
            order, offset = "BGR", [-value for value in preprocessing.CAFFE_MEAN_BGR]
        case "mean_std":
            means, deviations = preprocessing.TORCHVISION_MEAN, preprocessing.TORCHVISION_STD
            scale = [1 / (255 * deviation) for deviation in deviations]
            offset = [-m / d for m, d in zip(means, deviations, strict=True)]
    return {"name": name, "channels": order, "scale": scale, "offset": offset}


def parse_metadata(text: str | bytes, where: str) -> Metadata:
    """Reads what `to_json` wrote.

    Args:
      text: JSON.
      where: of errors.

    Raises:
      DeepLabError: it is damaged.
    """
    try:
        values = json.loads(text)
        names, palette = values.pop("class_names"), values.pop("palette")
        return Metadata(tuple(names), tuple(map(tuple, palette)), **values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeepLabError(f"{where}: its metadata are damaged ({error!r}); export again") from None
