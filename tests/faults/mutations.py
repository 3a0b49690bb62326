"""Images and masks as users' disks, cameras and programs spoil them."""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import PIL.Image

Random = np.random.Generator
SIZE = (40, 57)
NUM_CLASSES = 4
HUGE = (60_000, 50_000)
MODES = ("CMYK", "LA", "RGBA", "1", "P", "L", "YCbCr", "I", "F", "LAB", "PA")


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A file of an image or mask that is not as it should be.

    Attributes:
      kind: what was done to it.
      suffix: of its name.
      content: its bytes.
    """

    kind: str
    suffix: str
    content: bytes


def photo(random: Random, size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """Returns a smooth image with some noise."""
    coarse = random.integers(0, 256, (5, 7, 3), np.uint8)
    smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noisy = smooth + random.integers(-9, 10, smooth.shape)
    return PIL.Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def class_map(random: Random, size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    """Returns blobs of class indices with a void border."""
    coarse = random.integers(0, NUM_CLASSES, (5, 7), np.uint8)
    label = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
    label[0] = 255
    return PIL.Image.fromarray(label)


def encoded(image: PIL.Image.Image, format_name: str, **options: object) -> bytes:
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def _flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(int(random.choice([1, 1, 2, 8, 40]))):
        # Headers are a small part of a file and do the most.
        end = min(len(changed), 64) if random.random() < 0.4 else len(changed)
        changed[random.integers(end)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _truncated(content: bytes, random: Random) -> bytes:
    return content[: random.integers(len(content))]


def _zeroed(content: bytes, random: Random) -> bytes:
    """Returns the content with a stretch of zeros, as an unfinished copy leaves it."""
    first = int(random.integers(len(content)))
    last = int(random.integers(first, len(content))) + 1
    return content[:first] + bytes(last - first) + content[last:]


def _empty(content: bytes, random: Random) -> bytes:
    return b""


def _all_zeros(content: bytes, random: Random) -> bytes:
    return bytes(len(content))


def _longer(content: bytes, random: Random) -> bytes:
    return content + random.bytes(int(random.integers(1, 999)))


BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    "bit flips": _flipped,
    "truncated": _truncated,
    "a stretch of zeros": _zeroed,
    "zero bytes": _empty,
    "all zeros": _all_zeros,
    "bytes after the end": _longer,
}
FORMATS = {
    ".jpg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".webp": "WEBP",
}


def _damaged(kind: str, image: PIL.Image.Image, suffix: str, random: Random) -> Mutant:
    options = {"lossless": True} if suffix == ".webp" else {}
    if suffix == ".tif":
        options = {"compression": str(random.choice(["raw", "tiff_lzw", "tiff_adobe_deflate"]))}
    return Mutant(kind, suffix, BYTES[kind](encoded(image, FORMATS[suffix], **options), random))


def _other_mode(image: PIL.Image.Image, random: Random) -> Mutant:
    mode = str(random.choice(MODES))
    if mode == "PA":
        return Mutant("mode PA", ".png", encoded(image.quantize(7), "PNG", transparency=bytes(7)))
    suffix = {"CMYK": str(random.choice([".jpg", ".tif"])), "YCbCr": ".tif", "LAB": ".tif"}
    suffix |= {"I": ".tif", "F": ".tif"}
    if mode == "LAB":
        converted = PIL.Image.frombytes("LAB", image.size, image.convert("RGB").tobytes())
    else:
        middle = image.convert("L") if mode in "IF" else image.convert("RGB")
        converted = middle.convert(mode)
    end = suffix.get(mode, ".png")
    return Mutant(f"mode {mode}", end, encoded(converted, FORMATS[end]))


def _deep(image: PIL.Image.Image, random: Random) -> Mutant:
    channels = int(random.choice([1, 3, 4]))
    suffix = str(random.choice([".png", ".tif"]))
    values = np.asarray(image.convert("L"), np.uint16) * int(random.choice([1, 16, 257]))
    pixels = values if channels == 1 else np.repeat(values[..., None], channels, -1)
    return Mutant("16 bits", suffix, cv2.imencode(suffix, pixels)[1].tobytes())


def _large_deep(image: PIL.Image.Image, random: Random) -> Mutant:
    """81 million pixels of 16 bits: four times the memory where they are worked on as floats."""
    rows = zlib.compress(bytes(9_000 * 2 + 1) * 9_000, 9)
    header = struct.pack(">IIBBBBB", 9_000, 9_000, 16, 0, 0, 0, 0)
    return Mutant("large 16 bits", ".png", _png(header, rows))


def _png(header: bytes, rows: bytes) -> bytes:
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _rotated(image: PIL.Image.Image, random: Random) -> Mutant:
    exif = PIL.Image.Exif()
    # Legal are 1 to 8.
    exif[0x0112] = int(random.integers(0, 11))
    suffix = str(random.choice([".jpg", ".png", ".webp", ".tif"]))
    options = {"lossless": True} if suffix == ".webp" else {}
    return Mutant("EXIF orientation", suffix, encoded(image, FORMATS[suffix], exif=exif, **options))


def _huge_png(image: PIL.Image.Image, random: Random) -> Mutant:
    content = encoded(image, "PNG")
    header = b"IHDR" + struct.pack(">II", *HUGE) + content[24:29]
    checksum = struct.pack(">I", zlib.crc32(header))
    return Mutant("huge PNG", ".png", content[:12] + header + checksum + content[33:])


def _huge_jpeg(image: PIL.Image.Image, random: Random) -> Mutant:
    content = bytearray(encoded(image.convert("RGB"), "JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", 65_500, 65_500)
    return Mutant("huge JPEG", ".jpg", bytes(content))


def _large_jpeg(image: PIL.Image.Image, random: Random) -> Mutant:
    """Below the limit of Pillow, and with next to no pixels behind the header."""
    content = bytearray(encoded(image.convert("RGB"), "JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", 9_000, 9_000)
    return Mutant("large JPEG", ".jpg", bytes(content))


def _huge_bmp(image: PIL.Image.Image, random: Random) -> Mutant:
    content = bytearray(encoded(image, "BMP"))
    content[18:26] = struct.pack("<ii", *HUGE)
    return Mutant("huge BMP", ".bmp", bytes(content))


def _huge_tiff(image: PIL.Image.Image, random: Random) -> Mutant:
    return Mutant("huge TIFF", ".tif", _tiff_of_size(encoded(image, "TIFF"), HUGE))


def _tiff_of_size(content: bytes, size: tuple[int, int]) -> bytes:
    changed = bytearray(content)
    (directory,) = struct.unpack_from("<I", changed, 4)
    (entries,) = struct.unpack_from("<H", changed, directory)
    for entry in range(entries):
        at = directory + 2 + 12 * entry
        (tag,) = struct.unpack_from("<H", changed, at)
        if tag in (256, 257):
            # As 32-bit numbers, which hold more than most writers' 16.
            struct.pack_into("<HII", changed, at + 2, 4, 1, size[tag - 256])
    return bytes(changed)


def _huge_webp(image: PIL.Image.Image, random: Random) -> Mutant:
    content = bytearray(encoded(image.convert("RGBA"), "WEBP", exif=b"Exif\0\0x", lossless=True))
    start = content.index(b"VP8X")
    content[start + 12 : start + 18] = struct.pack("<I", 16_382)[:3] * 2
    return Mutant("huge WebP", ".webp", bytes(content))


def _bomb(image: PIL.Image.Image, random: Random) -> Mutant:
    """A whole image of one colour, small on disk and of 225 million pixels."""
    rows = zlib.compress(bytes(15_001) * 15_000, 9)
    header = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 0, 0, 0, 0)
    return Mutant("decompression bomb", ".png", _png(header, rows))


def _text_bomb(image: PIL.Image.Image, random: Random) -> Mutant:
    text = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    content = encoded(image, "PNG")
    return Mutant("text bomb", ".png", content[:33] + _chunk(b"zTXt", text) + content[33:])


def _chunk(name: bytes, data: bytes) -> bytes:
    length, checksum = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(name + data))
    return length + name + data + checksum


def _other_file(image: PIL.Image.Image, random: Random) -> Mutant:
    content = b"%PDF-1.7 <svg></svg> GIF89a \xff\xd8\xff \x89PNG\r\n\x1a hello".split(b" ")
    suffix = str(random.choice(list(FORMATS)))
    return Mutant("no image", suffix, content[random.integers(len(content))])


def _other_suffix(image: PIL.Image.Image, random: Random) -> Mutant:
    return Mutant("another suffix", ".jpg", encoded(image, "PNG"))


WHOLE: tuple[Callable[[PIL.Image.Image, Random], Mutant], ...] = (
    _other_mode,
    _other_mode,
    _deep,
    _rotated,
    _huge_png,
    _huge_jpeg,
    _huge_bmp,
    _huge_tiff,
    _huge_webp,
    _other_file,
    _other_suffix,
)
# Seconds each, so there are few.
COSTLY = (_bomb, _text_bomb, _large_deep, _large_jpeg)


def mutants(image: PIL.Image.Image, random: Random, count: int, suffixes: str) -> list[Mutant]:
    """Returns so many mutants of an image or mask, each kind often.

    Args:
      image: to spoil.
      random: of the kinds and places.
      count: of mutants.
      suffixes: of the formats that are damaged, separated by spaces.
    """
    found = [make(image, random) for make in COSTLY[: count // 20]]
    while len(found) < count:
        if random.random() < 0.6:
            kind, suffix = str(random.choice(list(BYTES))), str(random.choice(suffixes.split()))
            if kind in ("zero bytes", "all zeros") and random.random() < 0.7:
                kind = "bit flips"
            found.append(_damaged(kind, image, suffix, random))
        else:
            found.append(WHOLE[random.integers(len(WHOLE))](image, random))
    return found
