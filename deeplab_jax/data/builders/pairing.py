"""Matches images and masks by their names.

Each file has a key: its path below the folder of the images or masks, without the file extension.
For example, the key of both `images/train/a.jpg` and `masks/train/a.png` is `train/a`.
"""

import dataclasses
import itertools
import os
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deeplab_jax.errors import DeepLabError, shortened
from deeplab_jax.listing import MASK_SUFFIXES, composed

# Number of prefixes and suffixes of mask names to try, the most frequent first.
TRIED_AFFIXES = 3
SHOWN_NAMES = 3

# Paths of files by key; the docstring of this module defines keys.
Named = Mapping[str, Path]


class Affixes(NamedTuple):
    """Prefix and suffix of a file name; the name between them, the core, identifies an example."""

    prefix: str = ""
    suffix: str = ""

    def core(self, name: str) -> str | None:
        """Returns the core of a name; None if the name lacks the prefix, the suffix or a core."""
        end = len(name) - len(self.suffix)
        if not (name.startswith(self.prefix) and name.endswith(self.suffix)):
            return None
        return name[len(self.prefix) : end] if end > len(self.prefix) else None


@dataclasses.dataclass(frozen=True)
class Rule:
    """Rule by which the names of images and masks match.

    An image and a mask match if their names without prefix and suffix are equal.

    Attributes:
      image: prefix and suffix of the names of images.
      mask: prefix and suffix of the names of masks.
      folders: whether the folders of an image and its mask must have equal names.
      doubled: whether mask names contain the file extension of the image, as in `a.jpg.png`.
    """

    image: Affixes
    mask: Affixes
    folders: bool
    doubled: bool

    def match(self, images: Named, masks: Named) -> dict[str, str]:
        """Returns {key of image: key of its mask}.

        The result is {} if the rule is ambiguous: two masks or two images have equal names without
        prefix and suffix. It is also {} if two images lack the prefix or suffix.

        Args:
          images, masks: paths of the files by key; the key of `images/train/a.jpg` is `train/a`.
        """
        of_core: dict[tuple[str, str], str] = {}
        for key in masks:
            core = self._core(_undoubled(key) if self.doubled else key, self.mask)
            if core is not None and of_core.setdefault(core, key) != key:
                return {}
        cores = {key: self._core(key, self.image) for key in images}
        # Images without the prefix or suffix all have the core None.
        if len(set(cores.values())) < len(cores):
            return {}
        return {key: of_core[core] for key, core in cores.items() if core in of_core}

    def expected_mask(self, key: str) -> str:
        """Returns the name, without file extension, that the mask of an image must have.

        Args:
          key: key of the image, such as `train/a`.
        """
        _, name = split_key(key)
        return f"{self.mask.prefix}{self.image.core(name) or name}{self.mask.suffix}"

    def expected_image(self, key: str) -> str:
        """Returns the name, without file extension, that the image of a mask must have.

        Args:
          key: key of the mask, such as `train/a_mask`.
        """
        _, name = split_key(_undoubled(key) if self.doubled else key)
        return f"{self.image.prefix}{self.mask.core(name) or name}{self.image.suffix}"

    def _core(self, key: str, affixes: Affixes) -> tuple[str, str] | None:
        folder, name = split_key(key)
        core = affixes.core(name)
        return None if core is None else (folder if self.folders else "", core)


@dataclasses.dataclass(frozen=True)
class Matching:
    """Result of matching images and masks by name.

    The key of both `images/train/a.jpg` and `masks/train/a.png` is `train/a`.

    Attributes:
      rule: rule that finds a mask for the most images, before names are normalized.
      mask_of: {key of image: key of its mask}.
      without_mask: keys of images that have no mask.
      without_image: keys of masks that have no image.
    """

    rule: Rule
    mask_of: dict[str, str]
    without_mask: tuple[str, ...]
    without_image: tuple[str, ...]


def match_names(images: Named, masks: Named) -> Matching:
    """Matches images and masks by the rule that finds a mask for the most images.

    Each rule compares the names of images and masks, either whole or without a prefix and suffix
    that many images or many masks share. The name of a mask may also contain the file extension of
    its image, as in `a.jpg.png`. Each rule is tried twice: the first time, the folders of an image
    and its mask must have equal names; the second time, folders are ignored.

    If some images have no mask, the rules are tried again with all names in lower case and in the
    Unicode form NFC, and with numbers without leading zeros. The second result is used only if it
    has a mask for every image.

    Args:
      images, masks: paths of the files by key; at least one each. The key of both
        `images/train/a.jpg` and `masks/train/a.png` is `train/a`.

    Raises:
      DeepLabError: no image has a mask, or every image has two masks, such as `a_mask1` and
        `a_mask2`.
    """
    rule, mask_of = _best_match(images, masks)
    if len(mask_of) < len(images):
        loose_images, loose_masks = ({_loosened(key): key for key in of} for of in (images, masks))
        if len(loose_images) == len(images) and len(loose_masks) == len(masks):
            _, loose = _best_match(
                {key: images[original] for key, original in loose_images.items()},
                {key: masks[original] for key, original in loose_masks.items()},
            )
            if len(loose) == len(images):
                mask_of = {loose_images[key]: loose_masks[mask] for key, mask in loose.items()}
    if not mask_of:
        image_names, mask_names = ({split_key(key)[1] for key in of} for of in (images, masks))
        # Without duplicate names, files of equal names would have matched in spite of the folders.
        expected = (
            "several files in different folders have the same name, so the folders of an image and "
            "its mask must also match, as in train/images/ and train/masks/"
            if image_names & mask_names
            else "the names of an image and its mask must be equal, except for a prefix or suffix "
            "that all images or all masks share"
        )
        raise DeepLabError(
            f"none of {len(images)} images ({shown_names(images.values())}) has a mask among "
            f"{len(masks)} masks ({shown_names(masks.values())}); {expected}"
        )
    used = set(mask_of.values())
    return Matching(
        rule,
        mask_of,
        tuple(key for key in images if key not in mask_of),
        tuple(key for key in masks if key not in used),
    )


def _best_match(images: Named, masks: Named) -> tuple[Rule, dict[str, str]]:
    """Returns the rule that finds masks for the most images, and {key of image: key of its mask}.

    The key of both `images/train/a.jpg` and `masks/train/a.png` is `train/a`.

    Raises:
      DeepLabError: two rules find different masks for every image.
    """
    found = [(rule, rule.match(images, masks)) for rule in _rules(images, masks)]
    # Only rules without a prefix or suffix of images are compared. The others are a last resort.
    complete = [
        mask_of
        for rule, mask_of in found
        if len(mask_of) == len(images) and rule.image == Affixes()
    ]
    for first, second in itertools.pairwise(complete):
        key = next((key for key in images if first[key] != second[key]), None)
        if key is not None:
            raise DeepLabError(
                f"{len(images)} images have two masks each; for example, {images[key].name} has "
                f"{masks[first[key]].name} and {masks[second[key]].name}; move the masks of one "
                "kind to another folder, and set --masks=DIR to the folder of the masks to use"
            )
    # The first of equally good rules is the simplest.
    return max(found, key=lambda pair: len(pair[1]))


def _loosened(key: str) -> str:
    """Normalizes a key, so that similar names of an image and a mask match.

    The normalized key is in lower case and in the Unicode form NFC; numbers in it have no leading
    zeros.
    """
    return re.sub(r"(?<!\d)0+(?=\d)", "", composed(key.casefold()))


def _rules(images: Named, masks: Named) -> Iterator[Rule]:
    """Yields rules by which images and masks may match, the simplest first."""
    for doubled in (False, True):
        keys = [_undoubled(key) for key in masks] if doubled else list(masks)
        if doubled and keys == list(masks):
            return
        image_names, mask_names = ([split_key(key)[1] for key in names] for names in (images, keys))
        affixes = [(Affixes(), Affixes())]
        affixes += [(Affixes(), one) for one in frequent_affixes(image_names, mask_names)]
        affixes += [(one, Affixes()) for one in frequent_affixes(mask_names, image_names)]
        affixes.append((_common_affixes(image_names), _common_affixes(mask_names)))
        for (image, mask), folders in itertools.product(affixes, (True, False)):
            yield Rule(image, mask, folders, doubled)


def frequent_affixes(names: Iterable[str], longer: Iterable[str]) -> list[Affixes]:
    """Returns the most frequent prefixes and suffixes by which names in `longer` extend `names`.

    For example, `_mask` is a suffix if `longer` contains `a_mask`, and `names` contains `a`. Names
    are not divided inside a number: 1 is not a prefix by which 11 extends 1.
    """
    known = set(names)
    counts: Counter[Affixes] = Counter()
    for name in longer:
        for at in range(1, len(name)):
            if name[at - 1].isdigit() and name[at].isdigit():
                continue
            if name[:at] in known:
                counts[Affixes(suffix=name[at:])] += 1
            if name[at:] in known:
                counts[Affixes(prefix=name[:at])] += 1
    return [affixes for affixes, _ in counts.most_common(TRIED_AFFIXES)]


def _common_affixes(names: Sequence[str]) -> Affixes:
    """Returns the longest prefix and suffix that all names share, and that divide no number."""
    prefix = _common_prefix(names)
    rest = [name[len(prefix) :][::-1] for name in names]
    return Affixes(prefix, _common_prefix(rest)[::-1])


def _common_prefix(names: Sequence[str]) -> str:
    """Returns the longest prefix that all names share.

    Digits at its end are removed if a name continues with a digit: the prefix of `img10` and
    `img11` is `img`. Otherwise `img10` would match a mask `mask20`.
    """
    first, last = min(names), max(names)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = first[: len(list(same))]
    if any(name[len(prefix) : len(prefix) + 1].isdigit() for name in names):
        return prefix.rstrip(string.digits)
    return prefix


def split_key(key: str) -> tuple[str, str]:
    """Splits a key such as `train/a` into folder and name."""
    folder, _, name = key.rpartition("/")
    return folder, name


def _undoubled(key: str) -> str:
    """Removes the file extension of an image, if there is one: `a.jpg` becomes `a`."""
    stem, suffix = os.path.splitext(key)
    return stem if suffix.lower() in MASK_SUFFIXES else key


def shown_names(paths: Iterable[Path]) -> str:
    """Returns the names of the first few of `paths`, separated by commas, for errors."""
    return shortened([path.name for path in paths], SHOWN_NAMES)
