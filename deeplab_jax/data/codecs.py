"""Encodes images and masks as prepared datasets store them, and decodes them."""

import io
import struct

import cv2
import numpy as np
import PIL.Image

from deeplab_jax.data.descriptors import Bands
from deeplab_jax.errors import DeepLabError

PNG_START = b"\x89PNG"
# Positions of the width, followed by the height, and of the bit depth in a PNG file, in bytes.
PNG_SIZE, PNG_DEPTH = 16, 24
# Maximum height or width, and maximum number of pixels, of a PNG that OpenCV decodes.
MAX_SIDE, MAX_PIXELS = 1 << 20, 1 << 30


def decode_image(encoded: bytes) -> np.ndarray:
    """Decodes JPEG or PNG to uint8 [H, W, 3] RGB; gray becomes three equal channels.

    Like TFDS, this function ignores the EXIF orientation. `prepare` applies the orientation before
    it stores an image.

    Raises:
      DeepLabError: the bytes are not a JPEG or PNG image.
    """
    # OpenCV 4.10 has no RGB mode.
    image = _decode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def decode_label(encoded: bytes) -> np.ndarray:
    """Returns the gray levels or palette indices of a PNG mask, uint8 or uint16 [H, W].

    Raises:
      DeepLabError: the bytes are not an image of class indices.
    """
    label = _decode(encoded, cv2.IMREAD_UNCHANGED)
    if label.ndim == 3:
        # OpenCV returns the colors of palette images; Pillow keeps the indices.
        label = np.asarray(PIL.Image.open(io.BytesIO(encoded)))
    elif encoded.startswith(PNG_START) and encoded[PNG_DEPTH] in (1, 2, 4):
        # Gray levels of less than 8 bits are stretched to 0..255.
        label = label // (255 // (2 ** encoded[PNG_DEPTH] - 1))
    if label.ndim != 2 or label.dtype not in (np.uint8, np.uint16):
        raise DeepLabError(
            "the stored mask is not an 8-bit or 16-bit image of class indices; prepare the dataset "
            "again"
        )
    return label


def _decode(encoded: bytes, mode: int) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), mode) if encoded else None
    if decoded is None:
        raise DeepLabError(
            "the stored bytes are not an image that can be decoded; prepare the dataset again"
        )
    return decoded


def encode_png(image: np.ndarray) -> bytes:
    """Returns a PNG of an image, uint8 [H, W] or [H, W, 3] RGB, or uint16 [H, W]."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", pixels)[1].tobytes()


def encode_jpeg(image: np.ndarray) -> bytes:
    """Returns a JPEG of an image, uint8 [H, W, 3] RGB, with quality 95 of 100."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def encoded_size(encoded: bytes) -> tuple[int, int]:
    """Returns (height, width) of an encoded image; reads only its header."""
    if encoded.startswith(PNG_START):
        # Stacked bands may have more pixels than Pillow opens.
        width, height = struct.unpack_from(">II", encoded, PNG_SIZE)
        return height, width
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        return image.height, image.width


def encode_bands(image: np.ndarray) -> bytes:
    """Encodes uint8 or uint16 [H, W, C] as a gray PNG with the bands stacked vertically.

    Raises:
      DeepLabError: the PNG would be too large to decode.
    """
    height, width, count = image.shape
    if count * height > MAX_SIDE or image.size > MAX_PIXELS:
        raise DeepLabError(
            f"{count} bands of {height}x{width} pixels do not fit into one example; cut the image "
            f"into tiles with at most {MAX_PIXELS:,} values (height x width x bands) and at most "
            f"{MAX_SIDE // count:,} rows"
        )
    stacked = np.ascontiguousarray(np.moveaxis(image, -1, 0)).reshape(count * height, width)
    return cv2.imencode(".png", stacked)[1].tobytes()


def decode_bands(encoded: bytes, bands: Bands) -> np.ndarray:
    """Returns the image [H, W, C] that `encode_bands` encoded.

    Args:
      encoded: result of `encode_bands`.
      bands: number and dtype of the bands.

    Raises:
      DeepLabError: the bytes are not a gray PNG of the dtype `bands.dtype`.
    """
    # OpenCV raises its own exception for an empty array.
    array = np.frombuffer(encoded or b"?", np.uint8)
    stacked = cv2.imdecode(array, cv2.IMREAD_UNCHANGED)
    if (
        stacked is None
        or stacked.ndim != 2
        or stacked.dtype != bands.dtype
        or stacked.shape[0] % bands.count
    ):
        raise DeepLabError(
            f"the stored image cannot be decoded to {bands}; prepare the dataset again"
        )
    planes = stacked.reshape(bands.count, -1, stacked.shape[1])
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1))
