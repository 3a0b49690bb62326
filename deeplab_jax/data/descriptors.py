"""What a data set's labels mean: class names, palette, and the ids on disk."""

import dataclasses
import importlib.resources
from collections.abc import Sequence

import numpy as np

from deeplab_jax.data import color_maps
from deeplab_jax.data.color_maps import Color
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import VOID_COLOR


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """The classes of a data set, in label order.

    Attributes:
      name: of the data set.
      class_names: one a class; the label is the position.
      palette: one RGB triple 0..255 a class.
      intensity_range: values of images of more than 8 bits that became 0 and 255; None: each
        image's own, see `read_image`.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[Color, ...]
    intensity_range: tuple[float, float] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def check_several_classes(class_names: Sequence[str], origin: object) -> None:
    """Checks that there are at least two classes.

    Raises:
      DeepLabError: there is one class or none; `origin` names the file or dataset.
    """
    if len(class_names) < 2:
        named = f"only the class {class_names[0]!r}" if class_names else "no class"
        raise DeepLabError(
            f"{origin}: {named}; at least two are needed, since a softmax over one class is "
            "constant and learns nothing. Name the background as well, for example 'background' "
            "as class 0 and the object as class 1 (--classes of prepare, data.class_names of a "
            "config, class_names in Python)"
        )


def bit_interleaved_palette(num_colors: int) -> tuple[Color, ...]:
    """Returns VOC's colour map: the bits of the index dealt out to R, G, B from the top.

    Source: `VOClabelcolormap` of the PASCAL VOC development kit.
    """
    index = np.arange(num_colors)[:, None]
    channel = np.arange(3)[None, :]
    colors = np.zeros((num_colors, 3), np.int64)
    for triple in range(8):
        colors |= (index >> (3 * triple + channel) & 1) << (7 - triple)
    return tuple(tuple(color) for color in colors.tolist())


def describe(
    name: str, class_names: Sequence[str], palette: Sequence[Color] | None = None
) -> Descriptor:
    """Returns a descriptor, with VOC's colour map where no palette is given.

    One of that map's colours, number 511, is that of void in pictures; it is passed over.
    """
    colors = (
        palette
        or [
            color for color in bit_interleaved_palette(len(class_names) + 1) if color != VOID_COLOR
        ][: len(class_names)]
    )
    return Descriptor(name, tuple(class_names), tuple(tuple(color) for color in colors))


def _packaged(name: str) -> Descriptor:
    """Returns the descriptor whose `r g b name` lines lie beside this file."""
    text = importlib.resources.files(__package__).joinpath(f"classes/{name}.txt").read_text("utf-8")
    colors = color_maps.parse_text(text, origin=f"{name}.txt")
    return describe(name, list(colors), list(colors.values()))


VOC = _packaged("voc_segmentation")
CAMVID = _packaged("camvid")
CITYSCAPES = _packaged("cityscapes")
# Output 0 is the void that ADE20K's benchmark never scores: it is stored as IGNORE_LABEL, so
# nothing trains towards it.
ADE20K = _packaged("ade20k")
COCO_STUFF = _packaged("coco_stuff")
# In the order of the authors' 59_labels.txt, behind the background.
PASCAL_CONTEXT = _packaged("pascal_context")
PASCAL_PERSON_PART = _packaged("pascal_person_part")
SHAPES = _packaged("shapes")

# Cityscapes' labelIds of the 19 evaluated classes, in trainId order; all other ids are void.
# Source: cityscapesScripts, helpers/labels.py.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# COCO-Stuff's ids of the classes that no image holds; its label maps hold id - 1.
# Source: labels.md of nightrome/cocostuff.
COCO_STUFF_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
