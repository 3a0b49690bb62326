"""Findings of the check before a dataset is written, beyond single damaged examples."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from deeplab_jax.data.color_maps import Color
from deeplab_jax.errors import DeepLabError

# Examples that a note names before it says "…".
SHOWN_EXAMPLES = 3


class Facts(NamedTuple):
    """Findings of the check about one example.

    Attributes:
      digest: hash of the image's pixels; empty where it is not known.
      notes: what a user should know of it; equal notes are counted.
      mask: name of the file of the mask, for errors.
      used_colors: the palette's color of each index that occurs in the mask.
    """

    digest: bytes = b""
    notes: tuple[str, ...] = ()
    mask: str = ""
    used_colors: Mapping[int, Color] = MappingProxyType({})


class Findings:
    """Collects facts of examples, in their order, and compares them."""

    def __init__(self) -> None:
        self._examples_with: dict[str, list[str]] = defaultdict(list)
        self._counted: Counter[str] = Counter()
        self._names_of: dict[bytes, dict[str, str]] = defaultdict(dict)
        self._color_of: dict[int, tuple[Color, str]] = {}

    def add(self, split: str, image_id: str, facts: Facts) -> None:
        """Adds one example.

        Raises:
          DeepLabError: its palette and that of an earlier mask disagree about an index that occurs
            in both, so that an index is not the same class in all files.
        """
        for note in facts.notes:
            self._counted[note] += 1
            self._examples_with[note].append(f"{split}/{image_id}")
        if facts.digest:
            self._names_of[facts.digest].setdefault(split, image_id)
        for index, color in facts.used_colors.items():
            known, mask = self._color_of.setdefault(index, (color, facts.mask))
            if known != color:
                raise DeepLabError(
                    f"{facts.mask}: index {index} has the colour {color} in its palette, but "
                    f"{known} in {mask}. If the colours are the classes, give --color_map; if the "
                    "indices are, save all masks with one palette or as grey"
                )

    def notes(self) -> list[str]:
        """Returns a line for each kind of note, with count and examples, and for equal images."""
        lines = [
            f"{count} x {note}: {_listed(self._examples_with[note])}"
            for note, count in sorted(self._counted.items())
        ]
        return lines + self._equal_images()

    def _equal_images(self) -> list[str]:
        """Returns a line for each two splits with equal images, unless both are for training."""
        pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for names in self._names_of.values():
            splits = list(names)
            for number, first in enumerate(splits):
                for second in splits[number + 1 :]:
                    if not (first.startswith("train") and second.startswith("train")):
                        pairs[first, second].append(f"{names[first]} = {names[second]}")
        return [
            f"{len(equal)} images of {first} are also in {second} (equal pixels): {_listed(equal)}"
            for (first, second), equal in sorted(pairs.items())
        ]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_EXAMPLES]) + (", …" if len(names) > SHOWN_EXAMPLES else "")
