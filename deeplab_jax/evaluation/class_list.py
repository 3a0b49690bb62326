"""Classes to score, to which the classes of a model and those of a dataset are mapped."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.data.descriptors import VOID_NAMES, Descriptor, parse_json, read_text
from deeplab_jax.errors import DeepLabError, check_name, unknown_name
from deeplab_jax.files import as_path
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.visualize.class_maps import Color

# Name and RGB color in pictures of predictions that belong to no scored class.
UNSCORED, UNSCORED_COLOR = "not scored", (90, 90, 90)


@dataclasses.dataclass(frozen=True, eq=False)
class ClassList:
    """Classes to score; each consists of classes of the dataset and classes of the model.

    True classes that belong to no scored class are void. Predicted classes that belong to no scored
    class are counted as wrong at pixels whose true class is scored. The predicted class of a pixel
    is the argmax over all classes of the model, including those that belong to no scored class.

    Attributes:
      names: name of each scored class.
      palette: RGB 0..255 of each scored class, and of predictions that belong to no scored class.
      class_map: {class name: name of the scored class}, as the user gave it.
      of_truth: int [classes of the dataset]: index of the scored class, or -1 for void.
      of_prediction: int [classes of the model]: index of the scored class, or `len(names)` for a
        class that belongs to no scored class.
    """

    names: tuple[str, ...]
    palette: tuple[Color, ...]
    class_map: Mapping[str, str]
    of_truth: np.ndarray
    of_prediction: np.ndarray

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the scored classes, followed by the name "not scored".

        The last name stands for all predictions that belong to no scored class.
        """
        return (*self.names, UNSCORED)

    @property
    def num_outcomes(self) -> int:
        """Number of `outcomes`: the scored classes, and one class for unscored predictions."""
        return len(self.outcomes)

    def truth(self, label: np.ndarray) -> np.ndarray:
        """Converts labels of the dataset to indices of scored classes.

        Classes that belong to no scored class become void.

        Args:
          label: indices of classes of the dataset, or void; an array of any shape.

        Returns:
          An array of the same shape: uint8 with void = 255 if there are at most 254 scored classes,
          else uint16 with void = 65535.
        """
        void = void_label(self.num_outcomes)
        table = np.full(void_label(len(self.of_truth)) + 1, void, label_dtype(self.num_outcomes))
        table[: len(self.of_truth)] = np.where(self.of_truth < 0, void, self.of_truth)
        return table[label]

    def prediction(self, class_map: np.ndarray) -> np.ndarray:
        """Converts class indices that the model predicted to indices of `outcomes`.

        Args:
          class_map: indices of classes of the model, an array of any shape.
        """
        return self.of_prediction.astype(label_dtype(self.num_outcomes))[class_map]

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns the probability of each of the `outcomes`: the sum over its model classes.

        Args:
          probabilities: [..., classes of the model].

        Returns:
          float32 [..., num_outcomes], in the order of `outcomes`.
        """
        member = self.of_prediction[:, None] == np.arange(self.num_outcomes)
        return probabilities.astype(np.float32) @ member.astype(np.float32)

    def settings(self) -> dict[str, Any]:
        """Returns the settings `classes` and `class_map`, which are stored in `metrics.json`."""
        return {"classes": list(self.names), "class_map": dict(self.class_map) or None}


def make_class_list(
    class_names: Sequence[str],
    dataset: Descriptor,
    class_map: Mapping[str, str] | str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> ClassList | None:
    """Returns the classes to score, or None if neither `class_map` nor `classes` is given.

    Args:
      class_names: classes of the model.
      dataset: classes of the dataset.
      class_map: {name of a class of the model or the dataset: name of the scored class}, or the
        path of a file with lines `from: to` or JSON {"from": "to"}. A class that is not in the map
        belongs to the scored class of the same name, if there is one.
      classes: names of the scored classes (default: all scored classes in the map).

    Raises:
      DeepLabError: a name is unknown, no class is scored, or a scored class contains no class of
        the dataset or no class of the model.
    """
    if class_map is None and not classes:
        return None
    origin = class_map if isinstance(class_map, str | Path) else "class_map"
    if isinstance(class_map, str | Path):
        class_map = read_class_map(as_path(class_map))
    given = dict(class_map or {})
    known = list(dict.fromkeys([*class_names, *dataset.class_names]))
    for name in given:
        if name not in known:
            raise DeepLabError(f"{origin}: {unknown_name('class', name, known)}")
    targets = [name for name in dict.fromkeys(given.values()) if name.lower() not in VOID_NAMES]
    if not given:
        targets = list(dict.fromkeys(classes or ()))
    # Scored classes that are classes of the dataset keep the order of the dataset.
    targets = [name for name in dataset.class_names if name in targets] + [
        name for name in targets if name not in dataset.class_names
    ]
    if classes:
        legal = targets if given else known
        for name in classes:
            check_name("class", name, legal)
        targets = [name for name in targets if name in classes]
    if not targets:
        raise DeepLabError(
            f"{origin}: no class is scored, because the class map is empty or maps every class to "
            "void; map at least one class to a class that is not void, as in car: vehicle"
        )
    part_of = {name: name for name in targets} | given
    _check_members("dataset", dataset.class_names, targets, part_of)
    _check_members("model", class_names, targets, part_of)
    index = {name: position for position, name in enumerate(targets)}
    colors = dict(zip(dataset.class_names, dataset.palette, strict=True))
    first = {part_of.get(name): color for name, color in reversed(colors.items())}
    return ClassList(
        tuple(targets),
        (*(colors.get(name) or first[name] for name in targets), UNSCORED_COLOR),
        given,
        np.array([index.get(part_of.get(name, ""), -1) for name in dataset.class_names]),
        np.array([index.get(part_of.get(name, ""), len(targets)) for name in class_names]),
    )


def _check_members(
    kind: str, members: Sequence[str], targets: Sequence[str], part_of: Mapping[str, str]
) -> None:
    """Checks that every scored class contains at least one of the classes in `members`.

    Args:
      kind: `dataset` if `members` are the classes of the dataset, or `model` if they are those of
        the model; for the error message.
      members: names of all classes of the dataset, or of the model.
      targets: names of the scored classes.
      part_of: {name of a class of the dataset or the model: name of the scored class}.

    Raises:
      DeepLabError: a scored class contains none of `members`.
    """
    contained = {part_of.get(name) for name in members}
    for target in targets:
        if target not in contained:
            raise DeepLabError(
                f"class {target!r} cannot be scored: the {kind} has no such class, and no class "
                f"that is mapped to it; {unknown_name('class', target, members)}"
            )


def read_class_map(path: Path) -> dict[str, str]:
    """Reads a map from classes to scored classes: lines `from: to` or JSON {"from": "to"}.

    Raises:
      DeepLabError: the file does not exist, is empty, has neither form, or maps a class twice.
    """
    text = read_text(path, "class map")
    if path.suffix.lower() == ".json":
        entries = parse_json(text, path, unique=True)
        if not isinstance(entries, dict) or not all(map(_is_name, entries.values())):
            raise DeepLabError(
                f'{path}: a class map in JSON must have the form {{"from": "to", …}}'
            )
        pairs = list(entries.items())
    else:
        pairs = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            name, _, target = map(str.strip, line.partition(":"))
            if not (name and target):
                raise DeepLabError(f"{path}, line {number}: expected `from: to`, got {line!r}")
            pairs.append((name, target))
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not pairs:
        reason = "the file is empty" if twice is None else f"{twice!r} occurs twice"
        raise DeepLabError(f"{path}: {reason}; give one entry per class, as in `car: vehicle`")
    return dict(pairs)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
