"""Masks whose values, opacity or palettes mean something else than they seem to."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from deeplab_jax.data.codecs import decode_label
from deeplab_jax.data.masks import identity_labels, open_mask, read_colored_mask, read_mask
from deeplab_jax.errors import DeepLabError

OBJECT = np.zeros((6, 8), bool)
OBJECT[2:4, 3:7] = True


def png(values: np.ndarray, bits: int, color_type: int = 0) -> bytes:
    """Returns a PNG of `bits` per channel, written without a library."""
    rows = values.reshape(len(values), -1)
    channels = rows.shape[1] // values.shape[1]

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    def packed(row: np.ndarray) -> bytes:
        if bits == 16:
            return row.astype(">u2").tobytes()
        digits = (row[:, None] >> np.arange(bits - 1, -1, -1)) & 1
        return np.packbits(digits.ravel()).tobytes()

    header = struct.pack(
        ">IIBBBBB", rows.shape[1] // channels, len(rows), bits, color_type, 0, 0, 0
    )
    data = zlib.compress(b"".join(b"\0" + packed(row) for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_levels_of_any_depth_are_indices(tmp_path, bits):
    """Decoders stretch grey of 1, 2 and 4 bits to 0..255: 3 of 2 bits would be 255, void."""
    values = np.arange(24).reshape(4, 6) % min(2**bits, 16)
    path = tmp_path / "m.png"
    path.write_bytes(png(values, bits))
    assert np.array_equal(read_mask(path, identity_labels(16)), values)
    if bits <= 8:
        assert np.array_equal(decode_label(path.read_bytes()), values)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_indices_in_several_channels_of_16_bits_are_not_cut_to_8(tmp_path, channels):
    """Their high bytes are all 0."""
    values = np.repeat(np.arange(12).reshape(3, 4, 1), channels, -1)
    path = tmp_path / "m.png"
    path.write_bytes(png(values, 16, {2: 4, 3: 2, 4: 6}[channels]))
    for read in (lambda: read_mask(path, identity_labels(12)), lambda: open_mask(path).colors()):
        with pytest.raises(DeepLabError, match=r"m\.png: .* 8 bits"):
            read()


def with_opacity(color: tuple[int, ...], opacity: np.ndarray) -> PIL.Image.Image:
    pixels = np.empty((*opacity.shape, len(color) + 1), np.uint8)
    pixels[..., :-1], pixels[..., -1] = color, opacity
    return PIL.Image.fromarray(pixels)


@pytest.mark.parametrize("color", [(0,), (255,), (0, 0, 0), (1, 1, 1), (255, 255, 255)])
@pytest.mark.parametrize("levels", [(0, 255), (255, 0), (40, 200), (0, 1)])
def test_an_object_in_the_opacity_is_not_dropped(save, color, levels):
    path = save("m.png", with_opacity(color, np.where(OBJECT, *levels[::-1]).astype(np.uint8)))
    with pytest.raises(DeepLabError, match=r"m\.png: some pixels differ only"):
        read_mask(path, identity_labels(256 - 1))
    colors = {color * (3 // len(color)): 0}
    with pytest.raises(DeepLabError, match=r"m\.png: some pixels differ only"):
        read_colored_mask(path, colors)


def test_opacity_that_adds_nothing_is_ignored(save):
    """White objects on transparent black, as editors save them."""
    opacity = np.where(OBJECT, 255, 0).astype(np.uint8)
    grey = save("grey.png", PIL.Image.fromarray(np.dstack([OBJECT.astype(np.uint8), opacity])))
    assert np.array_equal(read_mask(grey, identity_labels(2)), OBJECT)
    red = save(
        "red.png", PIL.Image.fromarray(np.dstack([opacity, opacity * 0, opacity * 0, opacity]))
    )
    assert np.array_equal(read_colored_mask(red, {(0, 0, 0): 0, (255, 0, 0): 1}), OBJECT)
    uniform = save("uniform.png", with_opacity((1,), np.full((6, 8), 9, np.uint8)))
    assert (read_mask(uniform, identity_labels(2)) == 1).all()


def test_opacity_is_not_read_from_a_mask_that_has_none(save):
    path = save("m.png", PIL.Image.fromarray(OBJECT.astype(np.uint8)))
    with pytest.raises(DeepLabError, match=r"m\.png: the mask has no opacity channel"):
        read_mask(path, {0: 0, 255: 1}, in_opacity=True)


@pytest.mark.parametrize("stored", ["palette", "painted"])
def test_a_transparent_color_counts_where_colors_are_the_classes(save, stored):
    """Two palette entries of one color, one of them transparent."""
    image = PIL.Image.frombytes("P", (8, 6), OBJECT.astype(np.uint8).tobytes())
    image.putpalette([10, 20, 30] * 2)
    path = save("m.png", image, transparency=bytes([0, 255]))
    if stored == "palette":
        assert np.array_equal(read_mask(path, identity_labels(2)), OBJECT)
    else:
        with pytest.raises(DeepLabError, match="differ only in their opacity"):
            read_colored_mask(path, {(10, 20, 30): 0})


@pytest.mark.parametrize(
    ("name", "options"), [("m.jpg", {"quality": 100}), ("m.webp", {"quality": 100})]
)
def test_formats_that_change_values_are_refused(save, name, options):
    path = save(name, np.repeat(OBJECT[..., None] * np.uint8(9), 3, -1), **options)
    for read in (
        lambda: read_mask(path, identity_labels(10)),
        lambda: read_colored_mask(path, {(0, 0, 0): 0, (9, 9, 9): 1}),
    ):
        with pytest.raises(DeepLabError, match=rf"{name}: .* as PNG"):
            read()


@pytest.mark.parametrize("suffix", ["webp", "bmp", "tif"])
def test_lossless_formats_keep_values(save, suffix):
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = save(f"m.{suffix}", np.repeat(OBJECT[..., None] * np.uint8(9), 3, -1), **options)
    assert np.array_equal(read_mask(path, identity_labels(10)), OBJECT * 9)
