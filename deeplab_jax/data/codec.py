"""Encoded images as the prepared data sets hold them: fast decoding, exact encoding, headers."""

import io

import cv2
import numpy as np
import PIL.Image

from deeplab_jax.errors import DeepLabError

PNG_START = b"\x89PNG"
# Position of the bit depth in the header of a PNG.
PNG_DEPTH = 24


def decode_image(encoded: bytes) -> np.ndarray:
    """Decodes JPEG or PNG to uint8 [H, W, 3] RGB; grey becomes three equal channels.

    EXIF orientation is not applied, as in TFDS; preparing stores images upright.

    Raises:
      DeepLabError: the bytes are no such image.
    """
    # Not the decoder's own RGB mode: OpenCV 4.10 lacks it.
    image = _decode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def decode_label(encoded: bytes) -> np.ndarray:
    """Decodes a PNG mask to its values, uint8 or uint16 [H, W]: grey levels or palette indices.

    Raises:
      DeepLabError: the bytes are no image, or one of colours.
    """
    label = _decode(encoded, cv2.IMREAD_UNCHANGED)
    if label.ndim == 3:
        # OpenCV paints palette images; Pillow keeps the indices.
        label = np.asarray(PIL.Image.open(io.BytesIO(encoded)))
    elif encoded.startswith(PNG_START) and encoded[PNG_DEPTH] in (1, 2, 4):
        # Grey levels of less than 8 bits are stretched to 0..255.
        label = label // (255 // (2 ** encoded[PNG_DEPTH] - 1))
    if label.ndim != 2 or label.dtype not in (np.uint8, np.uint16):
        raise DeepLabError("its mask is not an 8-bit or 16-bit image of class indices")
    return label


def _decode(encoded: bytes, mode: int) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), mode) if encoded else None
    if decoded is None:
        raise DeepLabError("its bytes cannot be decoded")
    return decoded


def encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W] or [H, W, 3] RGB, or uint16 [H, W], without loss."""
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", pixels)[1].tobytes()


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """Encodes uint8 [H, W, 3] RGB."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encoded_size(encoded: bytes) -> tuple[int, int]:
    """Returns (height, width) from the header alone."""
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        return image.height, image.width
