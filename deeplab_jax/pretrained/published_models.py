"""Catalog of published weights, read from `published_models.toml`."""

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

# Incremented when the results of the conversion change; models are then converted again.
CONVERTER_VERSION = 1
HUB = "https://huggingface.co"
SEGMENTATION_CLASSES = {
    "voc_segmentation": VOC.class_names,
    "cityscapes": CITYSCAPES.class_names,
    "ade20k": ADE20K.class_names,
}
# Datasets of classifiers; the number of outputs determines whether one is the background.
IMAGENET = ("imagenet", "imagenet_with_background")


@dataclasses.dataclass(frozen=True)
class Metric:
    """Published evaluation metric.

    Attributes:
      value: value in percent.
      measure: `mIoU` or `top-1 accuracy`.
      split: dataset and split of the evaluation.
      setting: setting of the evaluation.
    """

    value: float
    measure: str
    split: str
    setting: str

    def __str__(self) -> str:
        return f"{self.value:g} % {self.measure}, {self.split}, {self.setting}"


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """Catalog entry of published weights.

    Attributes:
      name: name in the catalog.
      overrides: keywords of `create_model` that the file does not state, and the backbone.
      licence: licence of the weights, as stated by the publisher.
      page: page of the publisher that describes the weights.
      architecture: a name that `list_models` returns, or `image_classifier`; empty where the file
        determines it.
      data_set: dataset whose classes the outputs are; empty where the file determines it.
      inference_size: (H, W) in pixels of the published evaluation, or None.
      url: address of the file; empty for files on Hugging Face.
      hub_repository: repository on Hugging Face, such as `timm/xception65.tf_in1k`.
      hub_file: path of the file in the repository.
      member: text that the paths of the wanted files in an archive contain, such as `/ema/`.
      checksums: `sha256:…` or `sha384:…`, all or the first digits; one of them must match.
      metrics: published evaluation metrics.
      unverified: facts of this entry that were not checked at their source.
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
        """Names of the outputs, or None where the file states them."""
        return SEGMENTATION_CLASSES.get(self.data_set)

    @property
    def address(self) -> str:
        """URL of the file."""
        if self.url:
            return self.url
        return f"{HUB}/{self.hub_repository}/resolve/main/{self.hub_file}"

    @property
    def file_name(self) -> str:
        """Name of the file in the cache; files on Hugging Face have the name of the entry."""
        if self.url:
            return PurePosixPath(self.url).name
        return self.name + PurePosixPath(self.hub_file).suffix

    @property
    def provenance(self) -> dict[str, Any]:
        """Origin of the weights as `model.json` records it, beside the file and its checksum."""
        return {
            "name": self.name,
            "url": self.address,
            "page": self.page,
            "licence": self.licence,
            "metrics": [str(metric) for metric in self.metrics],
        }

    @property
    def version(self) -> str:
        """Eight hexadecimal digits that identify the version of entry and conversion."""
        facts = json.dumps([CONVERTER_VERSION, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        network = " ".join(filter(None, (self.architecture, self.overrides.get("backbone"))))
        figure = str(self.metrics[0]) if self.metrics else "no published figure"
        return "; ".join(filter(None, (network, self.data_set, figure, self.licence)))


@functools.cache
def _catalog() -> dict[str, PretrainedModel]:
    file = importlib.resources.files(__package__).joinpath("published_models.toml")
    entries = tomllib.loads(file.read_text("utf-8"))
    return {name: _entry(name, fields) for name, fields in entries.items()}


def list_pretrained() -> dict[str, PretrainedModel]:
    """Returns the catalog entries of published weights by name."""
    return dict(_catalog())


def find_pretrained(name: str) -> PretrainedModel:
    """Returns the catalog entry of a name.

    Raises:
      DeepLabError: there is no such entry; names the nearest.
    """
    if name not in _catalog():
        raise unknown_name("pretrained model", name, _catalog())
    return _catalog()[name]


def _entry(name: str, fields: dict[str, Any]) -> PretrainedModel:
    size = fields.pop("inference_size", None)
    fields["metrics"] = tuple(Metric(**metric) for metric in fields.get("metrics", ()))
    fields["checksums"] = tuple(fields.get("checksums", ()))
    return PretrainedModel(name, inference_size=size and tuple(size), **fields)
