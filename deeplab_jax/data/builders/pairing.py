"""Finds images and masks in a folder, and matches them by their names.

Files are identified by keys: a key is the path below the folder, without suffix, such as `train/a`.
"""

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deeplab_jax.data.image_layout import refuse_volumes
from deeplab_jax.errors import DeepLabError, shortened
from deeplab_jax.files import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images

# Words in names of folders that mean images, and words that mean masks.
IMAGE_WORDS = {"image", "images", "img", "imgs", "inputs", "jpegimages", "photo", "photos", "rgb"}
MASK_WORDS = {"annotation", "annotations", "groundtruth", "gt", "label", "labels", "mask", "masks"}
MASK_WORDS |= {"seg", "segmentation", "segmentationclass", "segmentations", "targets", "truth"}
# Suffixes of photographs. If a single folder contains images and masks, other files are masks.
PHOTO_SUFFIXES = (".jpeg", ".jpg")
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
        """Returns the name without prefix and suffix; None if it does not have them."""
        end = len(name) - len(self.suffix)
        if not (name.startswith(self.prefix) and name.endswith(self.suffix)):
            return None
        return name[len(self.prefix) : end] if end > len(self.prefix) else None


@dataclasses.dataclass(frozen=True)
class Rule:
    """Rule by which the names of images and masks match.

    An image and a mask match if their names without prefix and suffix are equal.

    Attributes:
      image, mask: prefix and suffix of the names of images, and those of the names of masks.
      folders: whether the folders of an image and its mask must have equal names.
      doubled: whether mask names contain the suffix of the image, as in `a.jpg.png`.
    """

    image: Affixes
    mask: Affixes
    folders: bool
    doubled: bool

    def match(self, images: Named, masks: Named) -> dict[str, str]:
        """Returns {image: mask}, as paths without suffix; {} if the match is ambiguous."""
        of_core: dict[tuple[str, str], str] = {}
        for key in masks:
            core = self._core(_undoubled(key) if self.doubled else key, self.mask)
            if core is not None and of_core.setdefault(core, key) != key:
                return {}
        cores = {key: self._core(key, self.image) for key in images}
        if len(set(cores.values())) < len(cores):
            return {}
        return {key: of_core[core] for key, core in cores.items() if core in of_core}

    def expected_mask(self, key: str) -> str:
        """Returns the expected name, without folder and suffix, of the mask of an image."""
        _, name = _split(key)
        return f"{self.mask.prefix}{self.image.core(name) or name}{self.mask.suffix}"

    def expected_image(self, key: str) -> str:
        """Returns the expected name, without folder and suffix, of the image of a mask."""
        _, name = _split(_undoubled(key) if self.doubled else key)
        return f"{self.image.prefix}{self.mask.core(name) or name}{self.image.suffix}"

    def _core(self, key: str, affixes: Affixes) -> tuple[str, str] | None:
        folder, name = _split(key)
        core = affixes.core(name)
        return None if core is None else (folder if self.folders else "", core)


@dataclasses.dataclass(frozen=True)
class Matching:
    """Result of matching images and masks by name.

    A key is the path of a file below the folder, without suffix, such as `train/a`.

    Attributes:
      rule: rule by which the names match.
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

    The rules are: the names of an image and its mask are equal; all masks, and perhaps all images,
    have a common prefix and suffix; or the name of a mask contains the suffix of its image.

    Names are compared between folders of equal names. If the names are unique, they are also
    compared across folders. If some images still have no mask, names are compared without case and
    without leading zeros of numbers. The result is used only if every image then has a mask.

    Args:
      images, masks: paths of the files by key, which is the path below the folder without suffix;
        at least one each.

    Raises:
      DeepLabError: no image has a mask, or two rules find different masks for all images.
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
        raise DeepLabError(
            f"none of {len(images)} images ({_names(images.values())}) has a mask among "
            f"{len(masks)} masks ({_names(masks.values())}); the names of an image and its mask "
            "must be equal, or differ by a prefix or suffix that is the same for all masks"
        )
    used = set(mask_of.values())
    return Matching(
        rule,
        mask_of,
        tuple(key for key in images if key not in mask_of),
        tuple(key for key in masks if key not in used),
    )


def _best_match(images: Named, masks: Named) -> tuple[Rule, dict[str, str]]:
    """Returns the rule that finds the most masks, and {image: mask}, as paths without suffix.

    Raises:
      DeepLabError: two rules find different masks for all images.
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
                f"{len(images)} images have two masks each, for example {images[key].name} has "
                f"{masks[first[key]].name} and {masks[second[key]].name}; move one kind of mask "
                "to another folder, and give the folder to use as --masks=DIR"
            )
    # The first of equally good rules is the simplest.
    return max(found, key=lambda pair: len(pair[1]))


def _loosened(key: str) -> str:
    """Returns a path in lower case, without leading zeros of numbers, for a tolerant comparison."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", key.casefold())


def _rules(images: Named, masks: Named) -> Iterator[Rule]:
    """Yields possible rules for the given names, the simplest first."""
    for doubled in (False, True):
        keys = [_undoubled(key) for key in masks] if doubled else list(masks)
        if doubled and keys == list(masks):
            return
        image_names, mask_names = ([_split(key)[1] for key in names] for names in (images, keys))
        affixes = [(Affixes(), Affixes())]
        affixes += [(Affixes(), one) for one in _frequent_affixes(image_names, mask_names)]
        affixes += [(one, Affixes()) for one in _frequent_affixes(mask_names, image_names)]
        affixes.append((_common_affixes(image_names), _common_affixes(mask_names)))
        for (image, mask), folders in itertools.product(affixes, (True, False)):
            yield Rule(image, mask, folders, doubled)


def _frequent_affixes(names: Iterable[str], longer: Iterable[str]) -> list[Affixes]:
    """Returns the most frequent prefixes and suffixes by which `longer` extends `names`.

    For example, `_mask` is a suffix if `longer` contains `a_mask`, and `names` contains `a`.
    """
    known = set(names)
    counts: Counter[Affixes] = Counter()
    for name in longer:
        for at in range(1, len(name)):
            if name[:at] in known:
                counts[Affixes(suffix=name[at:])] += 1
            if name[at:] in known:
                counts[Affixes(prefix=name[:at])] += 1
    return [affixes for affixes, _ in counts.most_common(TRIED_AFFIXES)]


def _common_affixes(names: Sequence[str]) -> Affixes:
    """Returns the longest prefix and suffix that all names share."""
    prefix = _common_prefix(names)
    rest = [name[len(prefix) :][::-1] for name in names]
    return Affixes(prefix, _common_prefix(rest)[::-1])


def _common_prefix(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return first[: len(list(same))]


def _split(key: str) -> tuple[str, str]:
    folder, _, name = key.rpartition("/")
    return folder, name


def _undoubled(key: str) -> str:
    """Returns a path without an image suffix at its end: `a.jpg` becomes `a`."""
    stem, suffix = os.path.splitext(key)
    return stem if suffix.lower() in MASK_SUFFIXES else key


def _names(paths: Iterable[Path]) -> str:
    return shortened([path.name for path in paths], SHOWN_NAMES)


# Names of splits, which are also names of folders.
SPLITS = ("train", "val", "test")
OTHER_SPLIT_NAMES = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}


class Found(NamedTuple):
    """Images and masks of a dataset, by their paths below the folder without suffix (keys)."""

    images: dict[str, Path]
    masks: dict[str, Path]


def find_files(source: Path, masks: Path | None, layout: str) -> Found:
    """Finds the images and masks in a folder.

    If the folders `images/` and `masks/` exist, or if `masks` is given, only these are searched.
    Otherwise words in the names of folders distinguish images and masks, as in `train/img/` and
    `train/labels/`. If both are in the same folder, masks are the files with longer names, or the
    files that are not JPEG.

    Args:
      source: folder to search.
      masks: folder of the masks; None if the user gave none.
      layout: expected layout, for errors.

    Raises:
      DeepLabError: there are no images or no masks. The message lists the files that were found.
    """
    image_folder, mask_folder = source / "images", masks or source / "masks"
    if image_folder.is_dir() and mask_folder.is_dir():
        images = _with_keys(image_folder, _files(image_folder, IMAGE_SUFFIXES, "images", layout))
        of_masks = _with_keys(mask_folder, _files(mask_folder, MASK_SUFFIXES, "masks", layout))
        return Found(_unique(images), _unique(of_masks))
    files = _files(source, MASK_SUFFIXES, "images", layout)
    if masks:
        of_masks = _with_keys(masks, _files(masks, MASK_SUFFIXES, "masks", layout))
        outside = _roles(source, [path for path in files if masks not in path.parents])
        images = outside["image"] or outside[""]
    else:
        of_role = _roles(source, files)
        images = of_role["image"] or of_role[""]
        of_masks = of_role["mask"] or (of_role[""] if of_role["image"] else [])
        if not of_masks:
            images, of_masks = _side_by_side(images)
    for kind, named in (("images", images), ("masks", of_masks)):
        if not named:
            raise DeepLabError(
                f"{source}: no {kind} found among {len(files)} pictures ({_names(files)}); {layout}"
            )
    return Found(_unique(_without_outer_folder(images)), _unique(_without_outer_folder(of_masks)))


Keyed = list[tuple[str, Path]]


def _files(folder: Path, suffixes: Sequence[str], kind: str, layout: str) -> list[Path]:
    """Returns the files below a folder that have one of the suffixes.

    Raises:
      DeepLabError: there is no such file. The message lists the files that were found.
    """
    found, left_out = list_images(folder, suffixes)
    if found:
        return found
    refuse_volumes(folder)
    there = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    others = " (for annotation files, use `prepare coco`, …; see --help)" * (kind == "masks")
    raise DeepLabError(
        f"{folder}: no {kind} found; the folder contains {there or 'no files'}, but {kind} must "
        f"have the suffix {', '.join(suffixes)}{others}; {layout}"
    )


def _with_keys(folder: Path, paths: Iterable[Path]) -> Keyed:
    return [(_key(path.relative_to(folder).with_suffix("").as_posix()), path) for path in paths]


def _key(path: str) -> str:
    """Renames the first folder of a path to a split's name, for example `training` to `train`."""
    first, slash, rest = path.partition("/")
    return f"{OTHER_SPLIT_NAMES.get(first.lower(), first)}/{rest}" if slash else path


def _roles(source: Path, paths: Iterable[Path]) -> dict[str, Keyed]:
    """Returns the files by the role that folder names show: `image`, `mask` or "" (unknown)."""
    of_role: dict[str, Keyed] = {"image": [], "mask": [], "": []}
    for path in paths:
        role, key = _role(path.relative_to(source).with_suffix("").as_posix())
        of_role[role].append((_key(key), path))
    return of_role


def _role(path: str) -> tuple[str, str]:
    """Returns the role of a file, `image` or `mask`, and its path without the words that show it.

    Words in folder names, such as `img` or `labels`, show whether a file is an image or a mask. The
    innermost folder with such a word determines the role. Without these words, an image and its
    mask have equal paths. If there is no such folder, the role is "" and the path is unchanged.
    """
    *folders, name = path.split("/")
    for at in reversed(range(len(folders))):
        words = _words(folders[at])
        for role, known in (("mask", MASK_WORDS), ("image", IMAGE_WORDS)):
            if known.intersection(words):
                left = "_".join(word for word in words if word not in known)
                return role, "/".join(filter(None, [*folders[:at], left, *folders[at + 1 :], name]))
    return "", path


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def _without_outer_folder(named: Keyed) -> Keyed:
    """Removes the first folder of all paths as long as all have the same, unless it is a split."""
    while len(outer := {key.partition("/")[0] for key, _ in named}) == 1:
        if not all("/" in key for key, _ in named) or outer <= {*SPLITS}:
            break
        named = [(_key(key.partition("/")[2]), path) for key, path in named]
    return named


def _side_by_side(named: Keyed) -> tuple[Keyed, Keyed]:
    """Divides the files of folders with both images and masks, by their names or formats."""
    names = [_split(key)[1] for key, _ in named]
    known = set(names)
    extending: list[Keyed] = []
    for affixes in _frequent_affixes(names, names)[:1]:
        masks = [pair for pair in named if affixes.core(_split(pair[0])[1]) in known]
        means_mask = MASK_WORDS & {*_words(affixes.prefix), *_words(affixes.suffix)}
        # An extension without a separator, such as the 0 by which 10 extends 1, is not an affix.
        is_separated = not (affixes.prefix[-1:] + affixes.suffix[:1]).isalnum()
        if means_mask or (is_separated and 2 * len(masks) == len(named)):
            extending = [[pair for pair in named if pair not in masks], masks]
    photos = [pair for pair in named if pair[1].suffix.lower() in PHOTO_SUFFIXES]
    others = [pair for pair in named if pair[1].suffix.lower() not in PHOTO_SUFFIXES]
    images, masks = extending or ([photos, others] if photos else [named, []])
    return images, masks


def _unique(named: Keyed) -> dict[str, Path]:
    """Returns {key: path} for pairs (key, path).

    Raises:
      DeepLabError: two files have the same key.
    """
    files: dict[str, Path] = {}
    for key, path in named:
        if files.setdefault(key, path) != path:
            raise DeepLabError(
                f"{path} and {files[key]} have the same name, and images and masks are matched by "
                "name; rename one, or give one folder of masks as --masks=DIR"
            )
    return files
