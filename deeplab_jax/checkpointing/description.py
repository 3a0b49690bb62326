"""`model.json`: what a model is, beside its variables."""

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING, Any

from deeplab_jax import models
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import write_text
from deeplab_jax.formats import FORMAT_FIELD, FORMAT_VERSION, check_format_version

if TYPE_CHECKING:
    from deeplab_jax.models import Architecture, DeepLab, ImageClassifier

FILE_NAME = "model.json"
SEGMENTATION, CLASSIFICATION = "segmentation", "classification"


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """All that is needed to build a model again and to read its output.

    Attributes:
      architecture: a name that `list_models` returns.
      overrides: keywords of `create_model`, JSON-ready; of a description that was read, the value
        of every keyword.
      class_names: of the logits, in order.
      palette: an RGB colour 0..255 a class.
      inference_size: (H, W) in pixels to which smaller images are padded; None: their own size.
      source: where the variables came from: training run, checksum, licence.
      task: `segmentation`; or `classification` of whole images, as networks whose backbones start
        others are published.
      intensity_range: values of images of more than 8 bits that become 0 and 255, as in training;
        None: each image's own.
    """

    architecture: str
    overrides: dict[str, Any]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    inference_size: tuple[int, int] | None = None
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    task: str = SEGMENTATION
    intensity_range: tuple[float, float] | None = None

    def create_model(self) -> "DeepLab | ImageClassifier":
        """Returns the model described."""
        if self.task == CLASSIFICATION:
            return models.create_classifier(**self.overrides)
        return models.create_model(self.architecture, **self.overrides)


def is_model(directory: pathlib.Path) -> bool:
    """Whether a directory says that it holds a model."""
    return (directory / FILE_NAME).is_file()


def write_description(directory: pathlib.Path, description: ModelDescription) -> None:
    """Writes `model.json` with the value of every keyword, whole or not at all.

    Raises:
      DeepLabError: no such network can be built.
    """
    overrides = description.create_model().architecture.describe()
    values = dataclasses.asdict(dataclasses.replace(description, overrides=overrides))
    text = json.dumps({FORMAT_FIELD: FORMAT_VERSION, **values}, indent=2) + "\n"
    write_text(directory / FILE_NAME, text)


def read_description(directory: pathlib.Path) -> ModelDescription:
    """Reads `model.json`; what an earlier release wrote has the defaults of that release.

    Raises:
      DeepLabError: the directory holds no model, or one that this release cannot read.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise DeepLabError(
            f"{directory} is no model: it has no {FILE_NAME}; "
            "give a workdir of `train` or a model directory"
        )
    try:
        return _parse(json.loads(path.read_text()))
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DeepLabError(f"{path} is damaged: {error!r}; restore it or convert again") from error


def _parse(values: dict[str, Any]) -> ModelDescription:
    version = check_format_version(values.pop(FORMAT_FIELD, 1))
    size, intensity_range = values.pop("inference_size"), values.pop("intensity_range", None)
    description = ModelDescription(
        class_names=tuple(values.pop("class_names")),
        palette=tuple(map(tuple, values.pop("palette"))),
        inference_size=None if size is None else tuple(size),
        intensity_range=None if intensity_range is None else tuple(intensity_range),
        **values,
    )
    overrides = _architecture(description, version).describe()
    return dataclasses.replace(description, overrides=overrides)


def _architecture(description: ModelDescription, version: int) -> "Architecture":
    if description.task == CLASSIFICATION:
        return models.restore_classifier(description.overrides, version).architecture
    return models.resolve_stored(description.architecture, description.overrides, version)
