"""Converts a file of published weights to a model with class names and palette."""

import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from deeplab_jax.checkpointing import CLASSIFICATION, SEGMENTATION, ModelDescription
from deeplab_jax.data.descriptors import ADE20K, CITYSCAPES, VOC, Descriptor, describe
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import sha256
from deeplab_jax.layers import record_inputs
from deeplab_jax.models import DeepLab, ImageClassifier
from deeplab_jax.pretrained.assignment import Assignment, Wanted, assign
from deeplab_jax.pretrained.name_maps import CONVENTIONS, IMAGE_CLASSIFIER, Convention, Identified
from deeplab_jax.pretrained.readers import read_weights, weights_file
from deeplab_jax.pretrained.weights import PublishedWeights

# Data sets whose number of classes tells them.
KNOWN = {descriptor.num_classes: descriptor for descriptor in (VOC, CITYSCAPES, ADE20K)}
BACKGROUND = "background"


def imagenet_classes() -> tuple[str, ...]:
    """Returns the names of ImageNet's 1,000 classes in the order of their WordNet ids."""
    text = (
        importlib.resources.files(__package__).joinpath("imagenet_classes.txt").read_text("utf-8")
    )
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def describe_classes(count: int, names: Sequence[str] | None, source: Path) -> Descriptor:
    """Returns names and colors of `count` classes.

    Args:
      count: of the outputs.
      names: of the classes, if told; else those of the data set with so many classes, else numbers.
      source: of the model, for the error.

    Raises:
      DeepLabError: there are more or fewer names than outputs.
    """
    if names is not None:
        if len(names) != count:
            raise DeepLabError(f"{source} has {count} outputs, but {len(names)} class names")
        same = KNOWN.get(count)
        palette = same.palette if same and same.class_names == tuple(names) else None
        return describe("", names, palette)
    if count in KNOWN:
        return KNOWN[count]
    if count in (1000, 1001):
        # Slim's classifiers have an output for the background before the classes.
        return describe("imagenet", [BACKGROUND] * (count - 1000) + list(imagenet_classes()))
    return describe("", [f"class_{number}" for number in range(count)])


# Missing or misshapen arrays that an error names one by one.
SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted model, not written yet.

    Attributes:
      description: for `model.json`.
      variables: its arrays; float32.
      assignment: which array of the file went where, and what was left over.
      convention: whose names the file has.
    """

    description: ModelDescription
    variables: dict[str, Any]
    assignment: Assignment
    convention: str


def convert(
    source: Path,
    architecture: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    prefer_averages: bool = True,
) -> Conversion:
    """Converts a file of published weights.

    Args:
      source: the file, or the directory that holds it and its configuration.
      architecture: what the file holds, where its names do not decide or should be overruled.
      overrides: keywords of `create_model` that overrule what was told.
      class_names: of the outputs; default: those of the data set with that many classes.
      provenance: what else `model.json` is to say of the source, such as URL and licence.
      prefer_averages: see `read_weights`.

    Raises:
      DeepLabError: the file cannot be read, holds no known network, or does not fill it.
    """
    weights = read_weights(source, prefer_averages)
    convention, identified = identify(weights, source)
    identified = Identified(
        architecture or identified.architecture, {**identified.overrides, **(overrides or {})}
    )
    description = _describe(source, weights, identified, class_names, provenance)
    wanted = wanted_variables(description.create_model())
    assignment = assign(wanted, weights, convention, convention.rules(identified))
    _check(assignment, source, identified)
    if assignment.folded:
        # Training that starts from them puts the normalisation back first.
        description.source["folded_batch_norm"] = sorted(assignment.folded)
    return Conversion(
        description, traverse_util.unflatten_dict(assignment.arrays), assignment, convention.name
    )


def identify(weights: PublishedWeights, source: Path) -> tuple[Convention, Identified]:
    """Returns whose names the arrays have and which network they make.

    Raises:
      DeepLabError: they are none of the known ones, or of a network that cannot be built here.
    """
    for convention in CONVENTIONS:
        try:
            identified = convention.identify(weights)
        except DeepLabError as error:
            raise DeepLabError(f"{source}: {error}") from error
        if identified is not None:
            return convention, identified
    known = "; ".join(dict.fromkeys(convention.name for convention in CONVENTIONS))
    first = ", ".join(list(weights.arrays)[:3])
    raise DeepLabError(
        f"{source} holds arrays such as {first}, which are of no network known here; "
        f"known are the names of {known}"
    )


def wanted_variables(model: DeepLab | ImageClassifier) -> Wanted:
    """Returns the variables of a model: shapes, and the constants of its normalisations."""
    epsilons = {}

    def seen(module: nn.BatchNorm, _: jax.Array) -> None:
        epsilons[module.path] = module.epsilon

    options = model.architecture
    # An image as large as the crop: image pooling takes windows of its own otherwise.
    image = jax.ShapeDtypeStruct((1, 65, 65, options.in_channels), jnp.uint8)
    variables = record_inputs(
        lambda: jax.eval_shape(model.init, jax.random.key(0), image),
        lambda module: isinstance(module, nn.BatchNorm),
        seen,
    )
    flat = traverse_util.flatten_dict(variables)
    return Wanted({path: leaf.shape for path, leaf in flat.items()}, epsilons)


def _describe(
    source: Path,
    weights: PublishedWeights,
    identified: Identified,
    class_names: Sequence[str] | None,
    provenance: Mapping[str, Any] | None,
) -> ModelDescription:
    task = CLASSIFICATION if identified.architecture == IMAGE_CLASSIFIER else SEGMENTATION
    count = identified.overrides["num_classes"]
    classes: Descriptor = describe_classes(count, class_names or weights.class_names, source)
    return ModelDescription(
        architecture=identified.architecture,
        overrides=dict(identified.overrides),
        class_names=classes.class_names,
        palette=classes.palette,
        inference_size=weights.graph.image_size if weights.graph else None,
        source={"file": source.name, "sha256": sha256(weights_file(source)), **(provenance or {})},
        task=task,
    )


def _check(assignment: Assignment, source: Path, identified: Identified) -> None:
    """Refuses what would leave a part of the network unfilled.

    Raises:
      DeepLabError: arrays are missing or of another shape; names them.
    """
    wrong = list(assignment.mismatched)
    wrong += [f"{'/'.join(path)}: {why}" for path, why in assignment.missing.items()]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise DeepLabError(
            f"{source} does not fill {identified.architecture} with {identified.overrides}: "
            f"{'; '.join(wrong[:SHOWN])}{more}"
        )
