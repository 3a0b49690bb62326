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
from deeplab_jax.errors import check_name
from deeplab_jax.pretrained.name_maps.rules import IMAGE_CLASSIFIER

# To be incremented if the result of the conversion changes; models are then converted again.
CONVERTER_VERSION = 1
HUB, INDEX = "https://huggingface.co", "https://pypi.org/project"
SEGMENTATION_CLASSES = {
    "voc_segmentation": VOC.class_names,
    "cityscapes": CITYSCAPES.class_names,
    "ade20k": ADE20K.class_names,
}
# Datasets of image classifiers; the second one has an additional class for the background.
IMAGENET = ("imagenet", "imagenet_with_background")


@dataclasses.dataclass(frozen=True)
class Metric:
    """Published evaluation metric.

    Attributes:
      value: value in percent.
      measure: name of the metric, `mIoU` or `top-1 accuracy`.
      split: dataset and split of the evaluation.
      setting: inference settings, such as scales and output stride.
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
      overrides: keyword arguments of `create_model`: the backbone, and settings that cannot be
        read from the weights file.
      license: license of the weights, according to the publisher.
      page: page of the publisher that describes the weights.
      architecture: a name that `list_models` returns, or `image_classifier`; empty if the weights
        file determines it.
      data_set: dataset whose classes the model predicts; empty if the weights file determines it.
      inference_size: (H, W) in pixels of the published evaluation, or None.
      url: address of the weights file, or of an archive that contains it; empty for weights files
        on Hugging Face and in packages.
      hub_repository: repository on Hugging Face, such as `timm/xception65.tf_in1k`.
      hub_file: path of the weights file in this repository.
      package: wheel on the Python Package Index with the weights file, as `NAME==VERSION`.
      member: for an archive, text that the paths of the weights files contain, such as `/ema/`;
        for a package, path of the weights file in the wheel.
      checksums: checksums of the file as `sha256:…` or `sha384:…`, complete or shortened to the
        first digits; one checksum must match. For a file in a package, a complete `sha256` is
        required, because the file is a pickle, which may run code when it is loaded.
      metrics: published evaluation metrics.
      unverified: facts of this entry that were not checked at the source.
    """

    name: str
    overrides: Mapping[str, Any]
    license: str
    page: str
    architecture: str = ""
    data_set: str = ""
    inference_size: tuple[int, int] | None = None
    url: str = ""
    hub_repository: str = ""
    hub_file: str = ""
    package: str = ""
    member: str = ""
    checksums: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    unverified: str = ""

    @property
    def task(self) -> str:
        """Task of the model: `segmentation` or `classification`."""
        return CLASSIFICATION if self.architecture == IMAGE_CLASSIFIER else SEGMENTATION

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names of `data_set`, or None if it is not a known segmentation dataset."""
        return SEGMENTATION_CLASSES.get(self.data_set)

    @property
    def address(self) -> str:
        """URL of the file to download, or of the web page of the package that contains it."""
        if self.url:
            return self.url
        if self.package:
            return f"{INDEX}/{self.package.replace('==', '/')}/"
        return f"{HUB}/{self.hub_repository}/resolve/main/{self.hub_file}"

    @property
    def file_name(self) -> str:
        """Name of the weights file, or of the archive that contains it, in the cache.

        * File with a URL: the last part of the URL.
        * File in a package: the name of the file in the package, with the suffix `.safetensors`,
          because the file is converted.
        * File on Hugging Face: the name of the catalog entry, with the suffix of the file. This
          name applies only to a file that the user puts into the cache. If the file is downloaded,
          huggingface_hub stores it in a directory of its own.
        """
        if self.url:
            return PurePosixPath(self.url).name
        if self.package:
            return PurePosixPath(self.member).with_suffix(".safetensors").name
        return self.name + PurePosixPath(self.hub_file).suffix

    @property
    def provenance(self) -> dict[str, Any]:
        """Origin of the weights, which conversion adds to the field `source` of `model.json`."""
        origin = {"name": self.name, "url": self.address, "page": self.page}
        if self.package:
            origin |= {"package": self.package, "package_file": self.checksums[0]}
        metrics = [str(metric) for metric in self.metrics]
        return {**origin, "license": self.license, "metrics": metrics}

    @property
    def version(self) -> str:
        """Version of the converted model: eight hexadecimal digits.

        The digits are the start of a SHA-256 over the fields of the entry and the version of the
        converter. If one of these changes, the weights are therefore converted again.
        """
        fields = dataclasses.asdict(self)
        if not self.package:
            # The version of an entry without a package does not depend on this field.
            del fields["package"]
        facts = json.dumps([CONVERTER_VERSION, fields], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:8]

    def __str__(self) -> str:
        network = " ".join(filter(None, (self.architecture, self.overrides.get("backbone"))))
        figure = str(self.metrics[0]) if self.metrics else "no published metric"
        return "; ".join(filter(None, (network, self.data_set, figure, self.license)))


@functools.cache
def _catalog() -> dict[str, PretrainedModel]:
    file = importlib.resources.files(__package__).joinpath("published_models.toml")
    entries = tomllib.loads(file.read_text("utf-8"))
    return {name: _entry(name, fields) for name, fields in entries.items()}


def list_pretrained() -> dict[str, PretrainedModel]:
    """Returns the catalog entries of published weights by name."""
    return dict(_catalog())


def find_pretrained(name: str) -> PretrainedModel:
    """Returns the catalog entry with the given name.

    Raises:
      DeepLabError: there is no such entry; the message contains the most similar name.
    """
    check_name("pretrained model", name, _catalog())
    return _catalog()[name]


def _entry(name: str, fields: dict[str, Any]) -> PretrainedModel:
    size = fields.pop("inference_size", None)
    fields["metrics"] = tuple(Metric(**metric) for metric in fields.get("metrics", ()))
    fields["checksums"] = tuple(fields.get("checksums", ()))
    return PretrainedModel(name, inference_size=size and tuple(size), **fields)
