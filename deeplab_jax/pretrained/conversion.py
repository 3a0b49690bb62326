"""Conversion of published weights into a model with class names and palette."""

import collections
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
from deeplab_jax.models import DeepLab, ImageClassifier, create_classifier, create_model
from deeplab_jax.pretrained.assignment import Assignment, Wanted, assign
from deeplab_jax.pretrained.name_maps import CONVENTIONS, IMAGE_CLASSIFIER, Convention, Identified
from deeplab_jax.pretrained.published_models import PretrainedModel
from deeplab_jax.pretrained.readers import read_weights, weights_file
from deeplab_jax.pretrained.weights import PublishedWeights

# Datasets with known class names, by number of classes.
KNOWN = {descriptor.num_classes: descriptor for descriptor in (VOC, CITYSCAPES, ADE20K)}
BACKGROUND = "background"


def imagenet_classes() -> tuple[str, ...]:
    """Returns the names of the 1,000 classes of ImageNet, in the order of their WordNet ids."""
    file = importlib.resources.files(__package__).joinpath("imagenet_classes.txt")
    return tuple(line for line in file.read_text("utf-8").splitlines() if not line.startswith("#"))


def describe_classes(count: int, names: Sequence[str] | None) -> Descriptor:
    """Returns the names and colors of the classes of a model.

    Args:
      count: number of outputs of the model.
      names: `count` class names. None: the class names of the known dataset with `count` classes.
        If there is none, a model with 1,000 outputs gets the names of ImageNet, a model with 1,001
        outputs gets a background and the names of ImageNet, and any other model gets `class_0`,
        `class_1`, ….
    """
    if names:
        same = KNOWN.get(count)
        palette = same.palette if same and same.class_names == tuple(names) else None
        return describe("", names, palette)
    if count in KNOWN:
        return KNOWN[count]
    if count in (1000, 1001):
        # The first output of classifiers from TensorFlow-Slim is the background.
        return describe("imagenet", [BACKGROUND] * (count - 1000) + list(imagenet_classes()))
    return describe("", [f"class_{number}" for number in range(count)])


def _check_class_names(
    names: Sequence[str], model: DeepLab | ImageClassifier, origin: str, source: Path
) -> None:
    """Checks the class names of a model.

    Args:
      names: class names.
      model: the network.
      origin: origin of the names for the error message, "given" or "stored with the weights".
      source: path of the weights, for the error message.

    Raises:
      DeepLabError: the number of names differs from the number of outputs, or a segmentation
        network has two classes of the same name.
    """
    advice = "give a different name for each output (--classes=FILE, class_names in Python)"
    count = model.architecture.num_classes
    if len(names) != count:
        raise DeepLabError(
            f"{source} has {count} outputs, but {len(names)} class names are {origin}; {advice}"
        )
    # Reports on segmentation store metrics by class name. Some published lists of the classes of
    # ImageNet contain a name twice, which is legal for image classifiers.
    repeated = [name for name, times in collections.Counter(names).items() if times > 1]
    if repeated and isinstance(model, DeepLab):
        raise DeepLabError(
            f"{source}: the class name {repeated[0]!r} occurs several times in the names {origin}; "
            f"{advice}"
        )


def _create_network(identified: Identified) -> DeepLab | ImageClassifier:
    """Builds the network of a weights file.

    Raises:
      DeepLabError: a keyword or value is invalid, or the keywords describe a quantized network.
    """
    if identified.architecture == IMAGE_CLASSIFIER:
        return create_classifier(**identified.overrides)
    model = create_model(identified.architecture, **identified.overrides)
    if model.architecture.quantization != "none":
        raise DeepLabError(
            f"quantization={model.architecture.quantization!r} requires the ranges of the "
            "features, which published weights do not contain; convert without quantization, and "
            "then run `deeplab-jax quantize` on the model"
        )
    return model


# Maximum number of missing or mismatched arrays that an error names.
SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Converted model in memory.

    Attributes:
      description: content of `model.json`.
      variables: variables of the model, in float32.
      assignment: arrays of the file by variable, and unused arrays.
      convention: name of the codebase whose naming convention the file follows.
      if_tensorflow: keywords of `create_model` with which the conversion must be repeated if the
        network was trained with TensorFlow's padding. They are given only if the file does not show
        the padding, in which case PyTorch's padding was assumed; otherwise empty.
    """

    description: ModelDescription
    variables: dict[str, Any]
    assignment: Assignment
    convention: str
    if_tensorflow: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def convert(
    source: Path,
    architecture: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    prefer_averages: bool = True,
    entry: PretrainedModel | None = None,
) -> Conversion:
    """Converts published weights into a model.

    Args:
      source: path of a weights file, the prefix of a TensorFlow checkpoint, or a directory with one
        of these.
      architecture: architecture of the network (default: that of the catalog entry, else detected
        from the names in the file).
      overrides: keywords of `create_model`; they take precedence over the keywords of the catalog
        entry, and over those that are detected from the file.
      class_names: names of the outputs (default: the names in the catalog entry or in the file,
        else those that `describe_classes` returns).
      prefer_averages: whether to read the moving average of a variable instead of the variable, if
        a TensorFlow checkpoint contains both.
      entry: catalog entry of the file, which provides facts that the file does not contain.

    Raises:
      DeepLabError: the file cannot be read, the file contains no known network, the arrays do not
        fit the variables of the network, a keyword is invalid, the number of class names differs
        from the number of outputs, or a segmentation network has two classes of the same name.
    """
    weights = read_weights(source, prefer_averages)
    convention, found = identify(weights, source)
    known, if_tensorflow = found.class_names, found.if_tensorflow
    chosen = {**(entry.overrides if entry else {}), **(overrides or {})}
    if chosen.keys() & if_tensorflow.keys():
        if_tensorflow = {}
    found = Identified(
        architecture or (entry and entry.architecture) or found.architecture,
        {**found.overrides, **chosen},
    )
    model = _create_network(found)
    given = class_names or (entry and entry.class_names)
    names = given or known or weights.class_names
    if names:
        origin = "given" if given else "stored with the weights"
        _check_class_names(names, model, origin, source)
    classes = describe_classes(model.architecture.num_classes, names)
    description = _describe(source, weights, found, classes, entry)
    assignment = assign(wanted_variables(model), weights, convention, convention.rules(found))
    wrong = list(assignment.mismatched)
    wrong += [f"{'/'.join(path)}: {why}" for path, why in assignment.missing.items()]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise DeepLabError(
            f"{source} does not fit the network {found.architecture} with {found.overrides}: "
            f"{'; '.join(wrong[:SHOWN])}{more}"
        )
    if assignment.folded:
        # A training run that starts from these weights first restores the batch normalizations.
        description.source["folded_batch_norm"] = sorted(assignment.folded)
    variables = traverse_util.unflatten_dict(assignment.arrays)
    return Conversion(description, variables, assignment, convention.name, if_tensorflow)


def _describe(
    source: Path,
    weights: PublishedWeights,
    identified: Identified,
    classes: Descriptor,
    entry: PretrainedModel | None,
) -> ModelDescription:
    is_classifier = identified.architecture == IMAGE_CLASSIFIER
    size = weights.graph.image_size if weights.graph else None
    origin = {"file": source.name, "sha256": sha256(weights_file(source))}
    return ModelDescription(
        architecture=identified.architecture,
        overrides=dict(identified.overrides),
        class_names=classes.class_names,
        palette=classes.palette,
        inference_size=size or (entry.inference_size if entry else None),
        source=origin | (entry.provenance if entry else {}),
        task=CLASSIFICATION if is_classifier else SEGMENTATION,
    )


def identify(weights: PublishedWeights, source: Path) -> tuple[Convention, Identified]:
    """Detects the naming convention of the arrays, and the network that they belong to.

    Raises:
      DeepLabError: no convention matches, or the network is not supported.
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
        f"{source} contains no known network: the names of its arrays ({first}, …) follow none of "
        f"the supported naming conventions: {known}"
    )


def wanted_variables(model: DeepLab | ImageClassifier) -> Wanted:
    """Returns the shapes of the variables of a model, and the epsilons of its normalizations."""
    epsilons = {}
    image = jax.ShapeDtypeStruct((1, 65, 65, model.architecture.in_channels), jnp.uint8)
    variables = record_inputs(
        lambda: jax.eval_shape(model.init, jax.random.key(0), image),
        lambda module: isinstance(module, nn.BatchNorm),
        lambda module, _: epsilons.update({module.path: module.epsilon}),
    )
    flat = traverse_util.flatten_dict(variables)
    return Wanted({path: leaf.shape for path, leaf in flat.items()}, epsilons)
