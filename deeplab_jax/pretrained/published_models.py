"""Published weights by name; the entries are in `published_models.toml`."""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
import tomllib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from deeplab_jax.checkpointing import CLASSIFICATION, SEGMENTATION
from deeplab_jax.data.descriptors import ADE20K, CITYSCAPES, VOC
from deeplab_jax.errors import unknown_name
from deeplab_jax.pretrained.name_maps.rules import IMAGE_CLASSIFIER

# A change of the conversion that changes its results; models converted before are made anew.
CONVERTER_VERSION = 1
HUB = "https://huggingface.co"
SEGMENTATION_CLASSES = {
    "voc_segmentation": VOC.class_names,
    "cityscapes": CITYSCAPES.class_names,
    "ade20k": ADE20K.class_names,
}
# The number of outputs tells whether background is one of them.
IMAGENET = ("imagenet", "imagenet_with_background")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A published figure.

    Attributes:
      value: percent.
      measure: `mIoU` or `top-1 accuracy`.
      split: data set and split it was measured on.
      setting: of the measurement.
    """

    value: float
    measure: str
    split: str
    setting: str

    def __str__(self) -> str:
        return f"{self.value:g} % {self.measure}, {self.split}, {self.setting}"


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """Published weights and what is known of them.

    Attributes:
      name: in the catalog.
      overrides: keywords of `create_model` that the file does not state, and the backbone.
      licence: of the weights, as their publisher states it.
      page: of the publisher that describes them.
      architecture: a name that `list_models` returns, or `image_classifier`; empty where only the
        file tells.
      data_set: whose classes the outputs are; empty where only the file tells.
      inference_size: (H, W) in pixels that the published figures were measured at, or None.
      url: of the file; empty where it lies on Hugging Face.
      hub_repository: on Hugging Face, as in `timm/xception65.tf_in1k`.
      hub_file: in that repository.
      member: of an archive: what the paths of the wanted files hold, as in `/ema/`.
      checksums: `sha256:…` or `sha384:…`, whole or the first digits; any of them will do.
      metrics: published figures.
      unverified: what of this entry was not seen at its source.
    """

    name: str
    overrides: Mapping[str, Any]
    licence: str
    page: str
    architecture: str = ""
    data_set: str = ""
    inference_size: tuple[int, int] | None = None
    url: str = ""
    hub_repository: str = ""
    hub_file: str = ""
    member: str = ""
    checksums: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    unverified: str = ""

    @property
    def task(self) -> str:
        """`segmentation` or `classification`."""
        return CLASSIFICATION if self.architecture == IMAGE_CLASSIFIER else SEGMENTATION

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the outputs; None where the file states them."""
        return SEGMENTATION_CLASSES.get(self.data_set)

    @property
    def address(self) -> str:
        """URL of the file."""
        if self.url:
            return self.url
        return f"{HUB}/{self.hub_repository}/resolve/main/{self.hub_file}"

    @property
    def file_name(self) -> str:
        """Name of the file in the cache; those on Hugging Face are all called the same."""
        if self.url:
            return PurePosixPath(self.url).name
        return self.name + PurePosixPath(self.hub_file).suffix

    @property
    def provenance(self) -> dict[str, Any]:
        """Source as `model.json` records it, beside the file and its checksum."""
        return {
            "name": self.name,
            "url": self.address,
            "page": self.page,
            "licence": self.licence,
            "metrics": [str(metric) for metric in self.metrics],
        }

    @property
    def version(self) -> str:
        """Eight digits that change when the entry or the conversion does."""
        facts = json.dumps([CONVERTER_VERSION, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        network = " ".join(filter(None, (self.architecture, self.overrides.get("backbone"))))
        figure = str(self.metrics[0]) if self.metrics else "no published figure"
        return "; ".join(filter(None, (network, self.data_set, figure, self.licence)))


@functools.cache
def _catalog() -> dict[str, PretrainedModel]:
    text = (
        importlib.resources.files(__package__).joinpath("published_models.toml").read_text("utf-8")
    )
    return {name: _entry(name, fields) for name, fields in tomllib.loads(text).items()}


def list_pretrained() -> dict[str, PretrainedModel]:
    """Returns every name of published weights with what is known of them."""
    return dict(_catalog())


def find_pretrained(name: str) -> PretrainedModel:
    """Returns the entry of a name.

    Raises:
      DeepLabError: there is none; names the nearest.
    """
    if name not in _catalog():
        raise unknown_name("pretrained model", name, _catalog())
    return _catalog()[name]


def _entry(name: str, fields: dict[str, Any]) -> PretrainedModel:
    size = fields.pop("inference_size", None)
    metrics = tuple(Metric(**metric) for metric in fields.pop("metrics", ()))
    checksums = tuple(fields.pop("checksums", ()))
    return PretrainedModel(
        name, inference_size=size and tuple(size), metrics=metrics, checksums=checksums, **fields
    )
