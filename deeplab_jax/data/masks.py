"""Reads mask files, checks all values, and converts values or colors to class indices."""

import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from deeplab_jax.data.bands import white_is_zero
from deeplab_jax.data.descriptors import Color, packed
from deeplab_jax.data.image_layout import OPACITY_MODES, is_deep, select_page, tiff_pages
from deeplab_jax.data.images import open_image, read_bytes
from deeplab_jax.data.orientation import UPRIGHT, upright
from deeplab_jax.errors import DeepLabError, shortened
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.listing import absence

INDEX_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
LOSSY, LOSSLESS_WEBP = ("JPEG", "MPO"), b"VP8L"
# Pillow's names of lossy compressions of a TIFF.
LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
ARRAY_SUFFIX = ".npy"
# Pillow's names of 2-bit and 4-bit gray levels in a file. It scales them to 0..255 when decoding.
STRETCHED = re.compile(r"'L;([24])")


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A decoded mask file.

    Attributes:
      path: path of the file.
      image: decoded image in the Pillow mode of the file, with the EXIF orientation applied.
      orientation: EXIF orientation of the file, 1..8.
      lossy: name of the compression if it is lossy (JPEG or WebP), else "".
    """

    path: Path
    image: PIL.Image.Image
    orientation: int
    lossy: str = ""

    def values(self) -> np.ndarray:
        """Returns the palette indices or gray levels of the mask, integers [H, W].

        The values are those that the file stores, also in a TIFF in which 0 represents white.

        Raises:
          DeepLabError: the file contains colors, floating-point numbers or several channels of
            more than 8 bits; pixels of one value differ in opacity; or the compression is lossy.
        """
        self._check_lossless()
        image, pixels = self.image, np.asarray(self.image)
        if image.mode == "P":
            return pixels
        if pixels.dtype.kind == "f":
            raise DeepLabError(
                f"{self.path}: the mask contains floating-point numbers; save class indices as "
                "integers"
            )
        if pixels.ndim == 2:
            if image.mode in ("1", "L") and white_is_zero(image):
                # Pillow inverts these values. tifffile writes boolean arrays in this form.
                pixels = ~pixels
            return _unstretched(pixels.astype(np.uint8) if image.mode == "1" else pixels, image)
        self._check_depth()
        opacity = self.opacity()
        colors = pixels if opacity is None else pixels[..., :-1]
        values = colors[..., 0]
        if image.mode not in INDEX_MODES or (colors != values[..., None]).any():
            raise DeepLabError(
                f"{self.path}: the mask is painted in colors; use `prepare folder` with a color "
                "map (--color_map) that assigns a class to each color"
            )
        self._check_opacity(values, opacity)
        return _unstretched(values, image)

    def colors(self) -> np.ndarray:
        """Returns the colors of the mask, uint8 [H, W, 3] RGB.

        Raises:
          DeepLabError: the file is an NPY file or has more than 8 bits per channel, pixels of one
            color differ in opacity, or the compression is lossy.
        """
        self._check_lossless()
        self._check_depth()
        image = self.image
        if is_deep(image) or self.path.suffix.lower() == ARRAY_SUFFIX:
            raise DeepLabError(
                f"{self.path}: the mask contains class indices, not colors; omit the color map, or "
                "give masks painted in 8-bit colors"
            )
        if "transparency" in image.info and image.mode == "P":
            image = image.convert("RGBA")
        colors = np.asarray(image.convert("RGB"))
        if image.mode in OPACITY_MODES:
            self._check_opacity(packed(colors), np.asarray(image.getchannel("A")))
        return colors

    def opacity(self) -> np.ndarray | None:
        """Returns the opacity (alpha) channel, uint8 [H, W], or None if there is none."""
        if self.image.mode not in OPACITY_MODES:
            return None
        return np.asarray(self.image.getchannel("A"))

    def used_colors(self) -> Mapping[int, Color]:
        """Returns the palette color of each index that occurs in the mask; {} without a palette."""
        if self.image.mode != "P":
            return {}
        palette = np.array(self.image.getpalette("RGB"), np.uint8).reshape(-1, 3).tolist()
        used = np.unique(np.asarray(self.image)).tolist()
        return {index: tuple(palette[index]) for index in used if index < len(palette)}

    def _check_lossless(self) -> None:
        if self.lossy:
            raise DeepLabError(
                f"{self.path}: {self.lossy} compression changes values, so pixels at the edges of "
                "objects may have the label of another class; export the masks again as PNG"
            )

    def _check_depth(self) -> None:
        if is_deep(self.image) and len(self.image.getbands()) > 1:
            raise DeepLabError(
                f"{self.path}: the mask has several channels of more than 8 bits; save it with 8 "
                "bits, or as one channel of class indices"
            )

    def _check_opacity(self, values: np.ndarray, opacity: np.ndarray | None) -> None:
        """Raises an error if pixels of one value differ in opacity."""
        if opacity is None or opacity.min() == opacity.max():
            return
        pairs = np.unique(values.astype(np.int64) << 8 | opacity)
        if len(np.unique(pairs >> 8)) < len(pairs):
            raise DeepLabError(
                f"{self.path}: some pixels differ only in their opacity (alpha channel), which "
                "is not read. Flatten the mask onto a background of another color, or save it as "
                "class indices"
            )


def open_mask(path: Path, page: int | None = None) -> MaskFile:
    """Decodes a mask and applies its EXIF orientation.

    Args:
      path: mask file.
      page: number of the page to read from a TIFF with several pages, from 1. It is ignored for
        files with one page.

    Raises:
      DeepLabError: the file is missing or damaged; has several pictures, and `page` selects none of
        them; has bands other than gray, colors and opacity; or is an NPY file that does not contain
        a two-dimensional array of integers.
    """
    if path.suffix.lower() == ARRAY_SUFFIX:
        return MaskFile(path, _array_picture(path), UPRIGHT)
    encoded, name = read_bytes(path)
    number = len(tiff_pages(io.BytesIO(encoded)))
    encoded = select_page(encoded, page if number > 1 else None, name)
    image = open_image(encoded, name)
    lossy = _lossy_compression(image, encoded)
    stored_as, orientation = image.info["stored_as"], image.info["orientation"]
    image = upright(image)
    image = _gray_levels(image) if image.format == "GIF" else image
    image.info["stored_as"] = stored_as
    return MaskFile(path, image, orientation, lossy)


def _lossy_compression(image: PIL.Image.Image, encoded: bytes) -> str:
    """Returns the name of the compression if it is lossy, else ""."""
    if image.format in LOSSY or (image.format == "WEBP" and LOSSLESS_WEBP not in encoded):
        return str(image.format)
    inside = image.info.get("compression") if image.format == "TIFF" else None
    return str(inside).removeprefix("tiff_").upper() if inside in LOSSY_IN_TIFF else ""


def _gray_levels(image: PIL.Image.Image) -> PIL.Image.Image:
    """Converts a GIF that contains only gray colors to a gray image; returns other GIFs unchanged.

    The GIF format has no gray images. Programs that save a gray image as GIF write a palette of the
    gray levels that occur in it, so the same gray level has different indices in different files.
    """
    if image.mode != "P":
        return image
    indices = np.asarray(image)
    palette = np.zeros((256, 3), np.uint8)
    colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(colors)] = colors
    used = palette[np.unique(indices)]
    is_gray = (used == used[:, :1]).all()
    return PIL.Image.fromarray(palette[indices, 0]) if is_gray else image


def _array_picture(path: Path) -> PIL.Image.Image:
    """Reads an NPY file of class indices as a Pillow image, without unpickling.

    Raises:
      DeepLabError: the file is missing or damaged, is not a two-dimensional array of integers, or
        contains values that int32 cannot represent.
    """
    try:
        # With a memory map, NumPy compares the shape in the header with the size of the file
        # before it allocates memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DeepLabError(f"{path}: {absence(path)}") from None
    # On damaged headers, NumPy raises exceptions of many types.
    except Exception as error:
        raise DeepLabError(
            f"{path}: the file is not a NumPy array of numbers ({error}); write it with np.save"
        ) from error
    if array.dtype.kind not in "biu" or array.ndim != 2 or not array.size:
        raise DeepLabError(
            f"{path}: the file contains an array of {array.dtype} with the shape {array.shape}; a "
            "mask must be an array of integers with the shape (height, width)"
        )
    values, range_of_pillow = np.array(array), np.iinfo(np.int32)
    if values.dtype.kind != "b" and values.dtype not in (np.uint8, np.uint16):
        if values.min() < range_of_pillow.min or values.max() > range_of_pillow.max:
            raise DeepLabError(
                f"{path}: the values {values.min()}..{values.max()} are not class indices, "
                "which must be from 0 to 65535"
            )
        values = values.astype(np.int32)
    image = PIL.Image.fromarray(values)
    image.info["stored_as"] = ""
    return image


def constant_color(mask: MaskFile) -> Color | None:
    """Returns the color of a mask that encodes a class by opacity, or None for any other mask.

    A mask encodes a class by opacity if all its pixels have the same color, and every pixel has
    the opacity 0 or 255.
    """
    opacity = mask.opacity()
    if opacity is None or not np.isin(opacity, (0, 255)).all():
        return None
    colors = np.asarray(mask.image.convert("RGB")).reshape(-1, 3)
    return tuple(colors[0].tolist()) if (colors == colors[0]).all() else None


def _unstretched(values: np.ndarray, image: PIL.Image.Image) -> np.ndarray:
    """Undoes the scaling to 0..255 that Pillow applies to gray levels of 2 or 4 bits."""
    stored = STRETCHED.search(image.info["stored_as"])
    return values // (255 // (2 ** int(stored[1]) - 1)) if stored else values


# Dtype of labels if there are at most 255 classes.
EIGHT_BIT = label_dtype(1)
# Maximum number of illegal values or colors that an error message lists.
SHOWN_VALUES = 5


def read_mask(
    source: Path | MaskFile,
    labels: Mapping[int, int],
    *,
    in_opacity: bool = False,
    dtype: np.dtype = EIGHT_BIT,
) -> np.ndarray:
    """Reads a mask whose palette indices or gray levels represent classes.

    Args:
      source: path of the mask, or the opened mask.
      labels: maps each legal value in the file to a class, or to the largest value of `dtype` for
        void.
      in_opacity: whether to read the values from the opacity channel.
      dtype: dtype of the labels: uint8, or uint16 for more than 255 classes.

    Returns:
      Labels [H, W].

    Raises:
      DeepLabError: the file is damaged, contains colors or illegal values, or has no opacity
        channel although `in_opacity` is True. The message lists illegal values and the number of
        pixels of each.
    """
    mask = _opened(source)
    values = mask.opacity() if in_opacity else mask.values()
    if values is None:
        raise DeepLabError(
            f"{mask.path}: the mask has no opacity channel (alpha), but the classes of this "
            "dataset are read from the opacity; save the mask with an opacity channel"
        )
    largest = np.iinfo(dtype).max
    legal = np.isin(values, list(labels))
    if not legal.all():
        void = [value for value, label in labels.items() if label == largest]
        classes = _ranges(labels.keys() - set(void))
        wrong, counts = np.unique(values[~legal], return_counts=True)
        raise DeepLabError(
            f"{mask.path}: illegal {_listed('mask value', wrong.tolist(), counts)}; legal: classes "
            f"{classes}, void {_ranges(void)}"
        )
    table = np.zeros(max(labels) + 1, dtype)
    table[list(labels)] = list(labels.values())
    return table[values]


def read_colored_mask(
    source: Path | MaskFile,
    labels: Mapping[Color, int],
    *,
    dtype: np.dtype = EIGHT_BIT,
    color_map: str = "the color map",
) -> np.ndarray:
    """Reads a mask whose colors represent classes.

    Args:
      source: path of the mask, or the opened mask.
      labels: maps each legal color to a class, or to the largest value of `dtype` for void.
      dtype: dtype of the labels: uint8, or uint16 for more than 255 classes.
      color_map: name of the file with the colors, for errors.

    Returns:
      Labels [H, W].

    Raises:
      DeepLabError: the file is damaged, or contains a color that `labels` does not contain.
    """
    mask = _opened(source)
    colors = mask.colors()
    legal = packed(np.array(list(labels), np.uint8))
    order = np.argsort(legal)
    values = packed(colors)
    at = np.minimum(np.searchsorted(legal, values, sorter=order), len(legal) - 1)
    wrong = legal[order[at]] != values
    if wrong.any():
        strange, counts = np.unique(colors[wrong], axis=0, return_counts=True)
        listed = _listed("color", list(map(tuple, strange.tolist())), counts)
        raise DeepLabError(
            f"{mask.path}: illegal {listed}; add each color to {color_map}, or repaint its pixels"
        )
    return np.array(list(labels.values()), dtype)[order[at]]


def identity_labels(num_classes: int) -> dict[int, int]:
    """Returns {label: label} for all classes and void.

    This dictionary is the argument `labels` of `read_mask` for masks that contain class indices.
    """
    return {value: value for value in (*range(num_classes), void_label(num_classes))}


def mask_values(path: Path, page: int | None = None) -> set[int]:
    """Returns the values that occur in a mask of class indices.

    Args:
      path: mask file.
      page: number of the page to read from a TIFF with several pages, from 1. It is ignored for
        files with one page.
    """
    return set(np.unique(open_mask(path, page).values()).tolist())


def _opened(source: Path | MaskFile) -> MaskFile:
    return source if isinstance(source, MaskFile) else open_mask(source)


def _listed(kind: str, values: Sequence[object], counts: np.ndarray) -> str:
    """Returns text such as "mask value 17 (23 pixels), 19 (4 pixels)", which begins with `kind`."""
    shown = [f"{value} ({count} pixels)" for value, count in zip(values, counts, strict=True)]
    return f"{kind} {shortened(shown, SHOWN_VALUES)}"


def _ranges(values: Iterable[int]) -> str:
    """Formats integers as a sorted list of ranges, such as "0..10, 12"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in runs) or "none"
