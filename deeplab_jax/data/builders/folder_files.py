"""Finds the images and the masks in a folder, by the names of folders and files.

Each file has a key, by which images and masks are matched. The key is the path of the file without
the folder of the images or masks and without file extension. For example, the key of both
`images/train/a.jpg` and `masks/train/a.png` is `train/a`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from deeplab_jax.data.builders.pairing import frequent_affixes, shown_names, split_key
from deeplab_jax.data.volumes import refuse_volumes
from deeplab_jax.errors import DeepLabError
from deeplab_jax.listing import IMAGE_SUFFIXES, MASK_SUFFIXES, list_images

# Words in names of folders that mean images, and words that mean masks.
IMAGE_WORDS = {"image", "images", "img", "imgs", "inputs", "jpegimages", "photo", "photos", "rgb"}
MASK_WORDS = {"annotation", "annotations", "groundtruth", "gt", "label", "labels", "mask", "masks"}
MASK_WORDS |= {"seg", "segmentation", "segmentationclass", "segmentations", "targets", "truth"}
# Suffixes of photographs. If a single folder contains images and masks, other files are masks.
PHOTO_SUFFIXES = (".jpeg", ".jpg")
SPLITS = ("train", "val", "test")
# Maps names of folders, and words in names of annotation files, in lower case, to splits.
SPLIT_NAMES = {
    **{split: split for split in SPLITS},
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}


class Found(NamedTuple):
    """Paths of the images and of the masks of a dataset, by key.

    For example, the key of both `images/train/a.jpg` and `masks/train/a.png` is `train/a`.
    """

    images: dict[str, Path]
    masks: dict[str, Path]


def find_files(source: Path, masks: Path | None, layout: str) -> Found:
    """Finds the images and masks in a folder.

    If `source` contains the folder `images/`, and masks are in `masks/` or in a folder given by the
    user, only these two folders are searched. Otherwise words in the names of folders distinguish
    images and masks, as in `train/img/` and `train/labels/`. If images and masks are in the same
    folder, masks are the files whose names extend those of images, such as `a_mask.png` for
    `a.jpg`. If there are no such names, JPEG files are images, and all other files are masks.

    Args:
      source: folder to search.
      masks: folder of the masks; None: masks are searched in `source`.
      layout: description of the expected layout, for errors.

    Raises:
      DeepLabError: there are no images or no masks. The message describes the files that were
        found.
    """
    image_folder, mask_folder = source / "images", masks or source / "masks"
    if image_folder.is_dir() and mask_folder.is_dir():
        found = _files(image_folder, IMAGE_SUFFIXES, "images", layout)
        images = _with_keys(image_folder, [one for one in found if mask_folder not in one.parents])
        if not images:
            raise DeepLabError(
                f"{image_folder}: all images are in the folder of the masks, {mask_folder}; "
                f"{layout}"
            )
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
                f"{source}: no {kind} found among {len(files)} pictures ({shown_names(files)}); "
                f"{layout}"
            )
    return Found(_unique(_without_outer_folder(images)), _unique(_without_outer_folder(of_masks)))


Keyed = list[tuple[str, Path]]


def _files(folder: Path, suffixes: Sequence[str], kind: str, layout: str) -> list[Path]:
    """Returns the files below a folder that have one of the suffixes.

    Args:
      folder: folder to search.
      suffixes: suffixes of file names, such as `.png`.
      kind: `images` or `masks`, for the error.
      layout: expected layout of the folder, for the error.

    Raises:
      DeepLabError: there is no such file. The message states the number of other files by suffix.
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
    """Replaces the outermost folder by the split that it names: `valid/a` becomes `val/a`."""
    first, slash, rest = path.partition("/")
    return f"{SPLIT_NAMES.get(first.lower(), first)}/{rest}" if slash else path


def _roles(source: Path, paths: Iterable[Path]) -> dict[str, Keyed]:
    """Groups files by their role: `image`, `mask`, or "" if folder names do not show the role.

    Returns:
      {role: pairs (key, path)}. A key is the path below `source`, without file extension and
      without the words that show the role.
    """
    of_role: dict[str, Keyed] = {"image": [], "mask": [], "": []}
    for path in paths:
        role, key = _role(path.relative_to(source).with_suffix("").as_posix())
        of_role[role].append((_key(key), path))
    return of_role


def _role(path: str) -> tuple[str, str]:
    """Returns the role of a file, and the path of the file without the words that show the role.

    Words in folder names, such as `img` or `labels`, show whether a file is an image or a mask. The
    innermost folder whose name contains such a word determines the role. The words that show this
    role are removed from the name of this folder: `train_img/a` becomes `train/a`, and `img/a`
    becomes `a`. If there is no such folder, the role is "", and the path is unchanged.
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
    """Removes from the keys the outer folders that are common to all keys.

    The removal stops at a folder with the name of a split: `data/train/a` becomes `train/a`.

    Args:
      named: pairs (key, path) of files; a key is a path without file extension.
    """
    while len(outer := {key.partition("/")[0] for key, _ in named}) == 1:
        if not all("/" in key for key, _ in named) or outer <= {*SPLITS}:
            break
        named = [(_key(key.partition("/")[2]), path) for key, path in named]
    return named


def _side_by_side(named: Keyed) -> tuple[Keyed, Keyed]:
    """Separates images from masks in the same folders, by their names or formats.

    Masks are the files whose names extend those of images, such as `a_mask` for `a`. If there are
    no such names, JPEG files are images, and other files are masks. If there are no JPEG files
    either, all files are images.

    Args:
      named: pairs (key, path) of files; a key is a path without file extension.

    Returns:
      The pairs of the images, and the pairs of the masks.
    """
    names = [split_key(key)[1] for key, _ in named]
    known = set(names)
    extending: list[Keyed] = []
    for affixes in frequent_affixes(names, names)[:1]:
        masks = [pair for pair in named if affixes.core(split_key(pair[0])[1]) in known]
        means_mask = MASK_WORDS & {*_words(affixes.prefix), *_words(affixes.suffix)}
        # An extension without a separator, such as the 0 by which 10 extends 1, is not an affix.
        is_separated = not (affixes.prefix[-1:] + affixes.suffix[:1]).isalnum()
        if means_mask or (is_separated and 2 * len(masks) == len(named)):
            are_masks = set(masks)
            extending = [[pair for pair in named if pair not in are_masks], masks]
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
                "name; rename one, or give the folder that contains the masks as --masks=DIR"
            )
    return files
