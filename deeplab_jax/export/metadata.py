"""Metadata of exported files: JSON that describes input, output, classes and network."""

import dataclasses
import importlib.metadata
import json
from typing import Any

import numpy as np

from deeplab_jax.checkpointing import ModelDescription, description_values
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.program import Program
from deeplab_jax.inference import Predictor
from deeplab_jax.models import Architecture, preprocessing
from deeplab_jax.models.preprocessing import channel_scale

KEY = "deeplab_jax"
# Advice that ends the error messages about files without metadata.
NO_METADATA = (
    "export the model with `deeplab-jax export`, or convert a published file with "
    "`deeplab-jax convert`"
)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Metadata that every exported file contains as JSON.

    Attributes:
      class_names: class names in the order of the logits.
      palette: RGB color 0..255 of each class.
      input: dictionary that describes the input of the exported network:

        * `name`, `dtype`, `shape`: shape is [N, H, W, C], with None for variable lengths.
        * `normalization`: `inside` if the exported network normalizes pixels itself. Otherwise, the
          caller must pass pixel · scale + offset, and the value is a dictionary:

          * `name`: value of the keyword `preprocessing` of the network.
          * `channels`: order of the channels: `RGB`, `BGR`, or `bands` for the order in which the
            image stores its bands.
          * `scale`, `offset`: one number for each channel, in the order of `channels`.
          * `dtype`: dtype of the pixels before normalization (default: uint8).
      sizes: dictionary that describes the legal image sizes:

        * `step`, `plus`: legal heights and widths in pixels are k · step + plus with k ≥ 1.
        * `fill`: padding value of each channel.
        * `largest`: maximum (H, W) in files of earlier releases, otherwise None.
      output: dictionary with `name`, `dtype`, `shape` and `meaning` of the output, such as "class
        of every pixel".
      source: origin of the weights.
      version: version of deeplab_jax that wrote the file.
      dtype: `ExportOptions.dtype`, float32 or float16; also float32 if the weights are quantized.
      model: description of the network, with the content of `model.json`. `FilePredictor` uses it.
        None in files of earlier releases.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    input: dict[str, Any]
    sizes: dict[str, Any]
    output: dict[str, Any]
    source: str
    version: str
    dtype: str = "float32"
    model: dict[str, Any] | None = None

    def to_json(self) -> str:
        """Returns the metadata as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @property
    def pixels(self) -> np.dtype:
        """Dtype of the pixels that `normalized` takes."""
        given = self.input["normalization"]
        name = self.input["dtype"] if given == "inside" else given.get("dtype", "uint8")
        return np.dtype(name)

    def normalized(self, images: np.ndarray) -> np.ndarray:
        """Normalizes images, unless the exported network normalizes its input itself.

        Args:
          images: [N, H, W, C], with the dtype `self.pixels`. Images with three uint8 channels are
            RGB.
        """
        given = self.input["normalization"]
        if given == "inside":
            return images
        ordered = images[..., ::-1] if given["channels"] == "BGR" else images
        return ordered * np.float32(given["scale"]) + np.float32(given["offset"])


def describe(program: Program) -> Metadata:
    """Returns the metadata for the file to which a program is exported."""
    options, predictor = program.options, program.predictor
    architecture = predictor.model.architecture
    step, plus = program.step
    outer = [options.batch, *(options.size or (None, None))]
    normalized: str | dict[str, Any] = "inside"
    if not options.preprocessing:
        normalized = normalization(architecture)
    name, dtype, shape, what = "class_map", "int32", outer, "class"
    if not options.argmax:
        name, dtype, shape, what = "logits", "float32", [*outer, architecture.num_classes], "logits"
    return Metadata(
        class_names=predictor.class_names,
        palette=predictor.palette,
        input={
            "name": "image",
            "dtype": str(program.input_dtype),
            "shape": [*outer, architecture.in_channels],
            "normalization": normalized,
        },
        # Readers may expect the key `largest`, because files of earlier releases contain it.
        sizes={"step": step, "plus": plus, "largest": None, "fill": list(architecture.mean_pixel)},
        output={"name": name, "dtype": dtype, "shape": shape, "meaning": f"{what} of every pixel"},
        source=predictor.source,
        version=importlib.metadata.version("deeplab_jax"),
        dtype=options.dtype,
        model=_model_description(predictor),
    )


def _model_description(predictor: Predictor) -> dict[str, Any]:
    """Returns the content of `model.json` for the network of a predictor."""
    description = ModelDescription(
        # All keywords are stored, so the defaults of this name have no effect.
        architecture="deeplab_v3",
        overrides=predictor.model.architecture.describe(),
        class_names=predictor.class_names,
        palette=predictor.palette,
        inference_size=predictor.inference_size,
        intensity_range=predictor.intensity_range,
        bands=predictor.bands.chosen,
        temperature=predictor.temperature,
    )
    return description_values(description)


def normalization(architecture: Architecture) -> dict[str, Any]:
    """Returns the input normalization of a network: `Metadata.input["normalization"]`."""
    order = "RGB" if architecture.takes_rgb else "bands"
    scale, offset = list(channel_scale(architecture)), [0.0] * architecture.in_channels
    match architecture.preprocessing:
        case "minus_one_one":
            offset = [-1.0] * architecture.in_channels
        case "mean":
            offset = [-value for value in preprocessing.SLIM_MEAN]
        case "vgg_mean":
            offset = [-value for value in preprocessing.VGG_MEAN]
        case "caffe_bgr":
            order, offset = "BGR", [-value for value in preprocessing.CAFFE_MEAN_BGR]
        case "mean_std":
            means, deviations = architecture.pixel_mean, architecture.pixel_std
            if not means:
                means, deviations = preprocessing.TORCHVISION_MEAN, preprocessing.TORCHVISION_STD
            offset = [-m / d for m, d in zip(means, deviations, strict=True)]
    return {
        "name": architecture.preprocessing,
        "channels": order,
        "scale": scale,
        "offset": offset,
        "dtype": architecture.image_dtype,
    }


def parse_metadata(text: str | bytes, where: str) -> Metadata:
    """Parses the metadata of an exported file.

    Args:
      text: JSON that `Metadata.to_json` returned.
      where: path of the file, for the error message.

    Raises:
      DeepLabError: the text is not JSON with the fields of `Metadata`.
    """
    try:
        values = json.loads(text)
        names, palette = values.pop("class_names"), values.pop("palette")
        colors = tuple((red, green, blue) for red, green, blue in palette)
        return Metadata(tuple(names), colors, **values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeepLabError(
            f"{where}: damaged metadata ({error!r}); export the model again"
        ) from None
