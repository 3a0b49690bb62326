"""Results of checking the examples of a dataset, and comparisons of the examples."""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from deeplab_jax.data.descriptors import Color
from deeplab_jax.errors import DeepLabError, shortened

# Maximum number of examples that a remark names.
SHOWN_EXAMPLES = 3
# Minimum fraction of the masks that must have the same color for an index; the others are damaged.
COMMON = 0.9


class Facts(NamedTuple):
    """Results of checking one example.

    Attributes:
      digest: hash of the pixels of the image, to find equal images in different splits; empty: the
        image is not compared with others.
      notes: remarks for the user; equal remarks on several examples become one line.
      mask: name of the mask file, for errors.
      used_colors: palette color of each index that occurs in the mask, as {index: RGB}.
    """

    digest: bytes = b""
    notes: tuple[str, ...] = ()
    mask: str = ""
    used_colors: Mapping[int, Color] = MappingProxyType({})


class Problem(NamedTuple):
    """An example that cannot be stored, and the reason."""

    split: str
    image_id: str
    reason: str


class Findings:
    """Collects the results of checking all examples, and compares the examples with each other."""

    def __init__(self) -> None:
        self._examples_with: dict[str, list[str]] = defaultdict(list)
        self._names_of: dict[bytes, dict[str, str]] = defaultdict(dict)

    def add(self, split: str, image_id: str, facts: Facts) -> None:
        """Adds the results of checking one example.

        Args:
          split: split of the example.
          image_id: name of the example.
          facts: results of the checks.
        """
        for note in facts.notes:
            self._examples_with[note].append(f"{split}/{image_id}")
        if facts.digest:
            self._names_of[facts.digest].setdefault(split, image_id)

    def notes(self) -> list[str]:
        """Returns remarks for the user, one line each, with number and names of the examples."""
        lines = [
            f"{len(examples)} x {note}: {shortened(examples, SHOWN_EXAMPLES)}"
            for note, examples in sorted(self._examples_with.items())
        ]
        return lines + self._equal_images()

    def _equal_images(self) -> list[str]:
        """Returns a warning for each pair of splits that have images in common.

        Pairs of training splits, such as train and train_aug, are not checked.
        """
        pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for names in self._names_of.values():
            for first, second in itertools.combinations(names, 2):
                if not (first.startswith("train") and second.startswith("train")):
                    pairs[first, second].append(f"{names[first]} = {names[second]}")
        return [
            f"{len(equal)} images of split {first} are also in split {second} (equal pixels): "
            + shortened(equal, SHOWN_EXAMPLES)
            for (first, second), equal in sorted(pairs.items())
        ]


def palette_problems(facts_of: Mapping[tuple[str, str], Facts]) -> list[Problem]:
    """Compares the palettes of all masks, and returns a problem for each damaged one.

    An index identifies a class if at least `COMMON` of the palettes have the same color for it. The
    other palettes are then damaged. If at least `COMMON` of the masks are gray, all indices
    identify classes, and palettes mean nothing.

    Args:
      facts_of: results of checking each example, by split and name.

    Raises:
      DeepLabError: the masks have different colors for an index, and none of them is this common,
        so that the index does not mean the same class in all masks.
    """
    names_of: dict[int, dict[Color, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for name, facts in facts_of.items():
        for index, color in facts.used_colors.items():
            names_of[index][color].append(name)
    num_gray = sum(not facts.used_colors for facts in facts_of.values())
    if num_gray >= COMMON * len(facts_of):
        return []
    problems: dict[tuple[str, str], Problem] = {}
    for index, with_color in names_of.items():
        common, *others = sorted(with_color, key=lambda color: -len(with_color[color]))
        usual, total = with_color[common], sum(map(len, with_color.values()))
        usual_mask = facts_of[usual[0]].mask
        for name in (name for color in others for name in with_color[color]):
            mask, color = facts_of[name].mask, facts_of[name].used_colors[index]
            if len(usual) < COMMON * total:
                raise DeepLabError(
                    f"{mask}: index {index} has the color {color} in the palette of this mask, but "
                    f"{common} in the palette of {usual_mask}. If colors identify the classes, use "
                    "`prepare folder` with --color_map; if indices identify them, save all masks "
                    "with the same palette, or as gray images"
                )
            reason = (
                f"{mask}: the palette differs from those of the other masks (index {index} has the "
                f"color {color} here, but {common} in {usual_mask})"
            )
            problems.setdefault(name, Problem(*name, reason))
    return list(problems.values())
