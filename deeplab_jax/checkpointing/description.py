"""Description of a model, stored as `model.json`."""

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any

from deeplab_jax import models
from deeplab_jax.data.descriptors import RGB, Bands
from deeplab_jax.declarations import ABOVE_ZERO
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import PAGE_NETWORK, write_text
from deeplab_jax.formats import FORMAT_FIELD, FORMAT_VERSION, check_format_version

if TYPE_CHECKING:
    from deeplab_jax.models import DeepLab, ImageClassifier

FILE_NAME = "model.json"
# File with all variables, in model directories for sharing.
SAFETENSORS = "model.safetensors"
SEGMENTATION, CLASSIFICATION = "segmentation", "classification"


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """Everything that is required to rebuild a model and to interpret its output.

    Attributes:
      architecture: name of the architecture, one of `list_models()`.
      overrides: keyword arguments of `create_model`, with JSON-ready values. A description that was
        read from `model.json` contains every keyword; otherwise, missing keywords have their
        defaults.
      class_names: names of the classes, in the order of the logits.
      palette: RGB color of each class, 0..255.
      inference_size: (H, W) in pixels to which smaller images are padded; None: each image is
        padded to the nearest larger size that the network accepts.
      source: facts about the origin of the variables, such as training run, checksum and license.
      task: `segmentation`, or `classification` of whole images.
      intensity_range: pixel values that are mapped to 0 and 255 in images of more than 8 bits, as
        in training; None: the range of each image, extended to include 0.
      bands: numbers, from 1, of the bands to read from each image file, as in training. None: the
        three RGB bands if the network takes RGB images, otherwise all bands of the file.
      temperature: divisor of the logits before the softmax (default: 1). The command `calibrate`
        fits it.
    """

    architecture: str
    overrides: dict[str, Any]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    inference_size: tuple[int, int] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    task: str = SEGMENTATION
    intensity_range: tuple[float, float] | None = None
    bands: tuple[int, ...] | None = None
    temperature: float = 1.0

    @property
    def image_bands(self) -> Bands:
        """Number and dtype of the network's input bands, and the bands to read from files."""
        count = self.overrides.get("in_channels", RGB.count)
        return Bands(count, self.overrides.get("image_dtype", RGB.dtype), self.bands)

    def create_model(self) -> "DeepLab | ImageClassifier":
        """Builds the described network, without variables."""
        if self.task == CLASSIFICATION:
            return models.create_classifier(**self.overrides)
        return models.create_model(self.architecture, **self.overrides)


def check_temperature(temperature: float) -> None:
    """Checks the temperature of class probabilities.

    Raises:
      DeepLabError: the temperature is not a finite number above 0.
    """
    if not ABOVE_ZERO.holds(temperature):
        raise DeepLabError(f"temperature={temperature!r} must be {ABOVE_ZERO.words}")


def is_model(directory: pathlib.Path) -> bool:
    """Returns whether a directory contains a model, that is, a file `model.json`."""
    return (directory / FILE_NAME).is_file()


def write_description(directory: pathlib.Path, description: ModelDescription) -> None:
    """Writes `model.json` atomically, with the values of all keywords of `create_model`.

    Raises:
      DeepLabError: the keywords in `overrides` do not describe a network.
    """
    overrides = description.create_model().architecture.describe()
    values = description_values(dataclasses.replace(description, overrides=overrides))
    write_text(directory / FILE_NAME, json.dumps(values, indent=2) + "\n")


def description_values(description: ModelDescription) -> dict[str, Any]:
    """Returns the content of `model.json` for a description, as JSON-ready values."""
    return {FORMAT_FIELD: FORMAT_VERSION, **dataclasses.asdict(description)}


def read_description(directory: pathlib.Path) -> ModelDescription:
    """Reads `model.json` from a model directory or a training workdir.

    If a keyword of `create_model` is missing from the file, the description contains the default
    that this keyword had in the release of the package that wrote the file.

    Raises:
      DeepLabError: the directory does not contain a model, or this release cannot read it.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise DeepLabError(
            f"{directory} is not a model: it has no {FILE_NAME}; "
            "give the workdir of a training run or a model directory"
        )
    try:
        return parse_description(json.loads(path.read_text()))
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if (directory / PAGE_NETWORK).is_file():
            raise DeepLabError(
                f"{directory} is an exported web page, not a model directory; give its network, "
                f"{directory / PAGE_NETWORK}"
            ) from error
        raise DeepLabError(
            f"{path} is damaged: {error!r}; restore the file, or convert the model again"
        ) from error


def parse_description(values: dict[str, Any]) -> ModelDescription:
    """Converts the content of `model.json` to a description.

    Args:
      values: content of `model.json`. The function removes entries from this dictionary.

    Raises:
      DeepLabError: this release cannot read the content.
      AttributeError, KeyError, TypeError, ValueError: the content is damaged.
    """
    version = check_format_version(values.pop(FORMAT_FIELD, 1))
    size, intensity_range = values.pop("inference_size"), values.pop("intensity_range", None)
    bands, source = values.pop("bands", None), dict(values.pop("source", {}))
    if "licence" in source:
        # Release 0.1.0 used this name.
        source["license"] = source.pop("licence")
    description = ModelDescription(
        class_names=tuple(values.pop("class_names")),
        palette=tuple(map(tuple, values.pop("palette"))),
        inference_size=size and tuple(size),
        intensity_range=intensity_range and tuple(intensity_range),
        bands=bands and tuple(bands),
        source=source,
        **values,
    )
    check_temperature(description.temperature)
    name, overrides = description.architecture, description.overrides
    if description.task == CLASSIFICATION:
        architecture = models.restore_classifier(overrides, version).architecture
    else:
        architecture = models.resolve_stored(name, overrides, version)
    return dataclasses.replace(description, overrides=architecture.describe())
