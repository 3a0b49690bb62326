"""Opens mask files: their values or colors, opacity, palette and orientation."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image

from deeplab_jax.data.color_maps import Color, packed
from deeplab_jax.data.images import is_deep, open_image, read_bytes, upright
from deeplab_jax.data.one_picture import OPACITY_MODES
from deeplab_jax.errors import DeepLabError

INDEX_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
LOSSY, LOSSLESS_WEBP = ("JPEG", "MPO"), b"VP8L"
# Grey levels of 2 and 4 bits, which decoders stretch to 0..255, as Pillow names their storage.
STRETCHED = re.compile(r"'L;([24])")


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A decoded mask.

    Attributes:
      path: of the file.
      image: decoded and upright, in the file's own mode.
      orientation: EXIF orientation that the file had, 1..8.
      lossy: whether the format changes values (JPEG, lossy WebP).
    """

    path: Path
    image: PIL.Image.Image
    orientation: int
    lossy: bool = False

    def values(self) -> np.ndarray:
        """Returns indices, int or uint [H, W]: those of a palette image, or grey levels.

        Raises:
          DeepLabError: the file holds colors or fractions, its opacity holds what its values do
            not, or its format changes values.
        """
        image, path = self.image, self.path
        self._check_lossless()
        if image.mode == "P":
            return np.asarray(image)
        pixels = np.asarray(image)
        if pixels.dtype.kind == "f":
            raise DeepLabError(f"{path}: the mask holds numbers with fractions; give class indices")
        if pixels.ndim == 2:
            return _unstretched(pixels.astype(np.uint8) if image.mode == "1" else pixels, image)
        self._check_depth()
        opacity = self.opacity()
        colors = pixels if opacity is None else pixels[..., :-1]
        values = colors[..., 0]
        if image.mode not in INDEX_MODES or (colors != values[..., None]).any():
            raise DeepLabError(
                f"{path}: the mask is painted in colours; give a colour map that says which colour "
                "is which class"
            )
        self._check_opacity(values, opacity)
        return _unstretched(values, image)

    def colors(self) -> np.ndarray:
        """Returns the colors, uint8 [H, W, 3] RGB.

        Raises:
          DeepLabError: the file has more than 8 bits, its opacity tells apart what its colors do
            not, or its format changes values.
        """
        self._check_lossless()
        self._check_depth()
        if "transparency" in self.image.info and self.image.mode == "P":
            image = self.image.convert("RGBA")
        else:
            image = self.image
        colors = np.asarray(image.convert("RGB"))
        if image.mode in OPACITY_MODES:
            self._check_opacity(packed(colors), np.asarray(image.getchannel("A")))
        return colors

    def opacity(self) -> np.ndarray | None:
        """Returns the opacity channel, uint8 [H, W]; None without one."""
        if self.image.mode not in OPACITY_MODES:
            return None
        return np.asarray(self.image.getchannel("A"))

    def palette(self) -> np.ndarray | None:
        """Returns the palette, uint8 [K, 3] RGB; None without one."""
        if self.image.mode != "P":
            return None
        return np.array(self.image.getpalette("RGB"), np.uint8).reshape(-1, 3)

    def used_colors(self) -> Mapping[int, Color]:
        """Returns the palette's color of each index that occurs; empty without a palette."""
        palette = self.palette()
        if palette is None:
            return {}
        used = np.unique(np.asarray(self.image)).tolist()
        return {index: tuple(palette[index].tolist()) for index in used if index < len(palette)}

    def _check_lossless(self) -> None:
        if self.lossy:
            raise DeepLabError(
                f"{self.path}: {self.image.format} compression changes values, so that pixels at "
                "the edges of objects may get the label of another class; export the masks anew "
                "as PNG"
            )

    def _check_depth(self) -> None:
        if is_deep(self.image) and len(self.image.getbands()) > 1:
            raise DeepLabError(
                f"{self.path}: the mask has several channels of more than 8 bits; save it with 8 "
                "bits, or as one channel of class indices"
            )

    def _check_opacity(self, values: np.ndarray, opacity: np.ndarray | None) -> None:
        """Refuses opacity that tells apart pixels of one value; other opacity adds nothing."""
        if opacity is None or opacity.min() == opacity.max():
            return
        pairs = np.unique(values.astype(np.int64) << 8 | opacity)
        if len(np.unique(pairs >> 8)) < len(pairs):
            raise DeepLabError(
                f"{self.path}: its opacity tells apart pixels of one colour, so labels would be "
                "lost. Flatten the mask onto a background of another colour, or "
                "save it as class indices"
            )


def open_mask(path: Path) -> MaskFile:
    """Decodes a mask and turns it upright, as a viewer displays it.

    Raises:
      DeepLabError: the file is missing, damaged, or holds several pictures or further bands.
    """
    encoded, name = read_bytes(path)
    image = open_image(encoded, name)
    lossy = image.format in LOSSY or (image.format == "WEBP" and LOSSLESS_WEBP not in encoded)
    stored_as, orientation = image.info["stored_as"], image.info["orientation"]
    image = upright(image)
    image.info["stored_as"] = stored_as
    return MaskFile(path, image, orientation, lossy)


def constant_color(mask: MaskFile) -> Color | None:
    """Returns the only color of a mask with opacity of 0 and 255; None for any other mask."""
    opacity = mask.opacity()
    if opacity is None or not np.isin(opacity, (0, 255)).all():
        return None
    colors = np.asarray(mask.image.convert("RGB")).reshape(-1, 3)
    return tuple(colors[0].tolist()) if (colors == colors[0]).all() else None


def _unstretched(values: np.ndarray, image: PIL.Image.Image) -> np.ndarray:
    """Returns the stored values of 2 or 4 bits that decoding has stretched to 0..255."""
    stored = STRETCHED.search(image.info["stored_as"])
    return values // (255 // (2 ** int(stored[1]) - 1)) if stored else values
