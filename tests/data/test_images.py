import concurrent.futures
import io
import struct
import time

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.PngImagePlugin
import pytest

from deeplab_jax.data import images
from deeplab_jax.data.codecs import decode_image, decode_label, encode_png, encoded_size
from deeplab_jax.data.images import one_large_at_a_time, read_image, storable_image
from deeplab_jax.data.masks import open_mask
from deeplab_jax.errors import DeepLabError


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK"])
def test_every_mode_becomes_rgb(save, photo, mode):
    image = PIL.Image.fromarray(photo).convert(mode)
    path = save("x.tif" if mode == "CMYK" else "x.png", image)
    read = read_image(path)
    assert read.shape == photo.shape
    assert read.dtype == np.uint8
    assert np.array_equal(read, np.array(image.convert("RGB")))
    encoded, size, *_ = storable_image(path)
    assert size == photo.shape[:2] == encoded_size(encoded)
    assert np.array_equal(decode_image(encoded), read)


def test_a_png_with_large_metadata_is_read(save, photo):
    metadata = PIL.PngImagePlugin.PngInfo()
    metadata.add_itxt("history", "a" * (2 << 20), zip=True)
    path = save("x.png", photo, pnginfo=metadata)
    assert np.array_equal(read_image(path), photo)


def test_palette_with_transparency(save, photo):
    image = PIL.Image.fromarray(photo).quantize(8)
    path = save("x.png", image, transparency=bytes([0, 255] * 4))
    assert np.array_equal(read_image(path), np.array(image.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_mapped_linearly(tmp_path, channels, suffix):
    levels = np.arange(0, 4095, 13, dtype=np.uint16).reshape(-1, 5)
    pixels = np.repeat(levels[..., None], channels, -1)
    if channels >= 3:
        pixels[..., 2] //= 2  # red, in OpenCV's order
        pixels[..., 3:] = 65535  # opaque
    path = tmp_path / f"x.{suffix}"
    cv2.imwrite(str(path), pixels if channels > 1 else levels)
    top = levels.max()
    for given, high in ((None, top), ((0.0, 4095.0), 4095)):
        green = np.rint(levels * (255 / high)).astype(np.uint8)
        red = np.rint(levels // 2 * (255 / high)).astype(np.uint8) if channels >= 3 else green
        expected = np.stack([red, green, green], -1)
        assert np.array_equal(read_image(path, intensity_range=given), expected)
        encoded, *_ = storable_image(path, given)
        assert np.array_equal(decode_image(encoded), expected)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0.0, 0.5], [np.nan, 1.0]], np.float32), [[0, 128], [0, 255]]),
        (np.array([[-1.0, 0.0], [np.nan, 1.0]], np.float32), [[0, 128], [0, 255]]),
        (np.array([[-np.inf, 2.0], [4.0, np.inf]], np.float32), [[0, 128], [255, 255]]),
        (np.array([[-1000, 500], [1400, 2000]], np.int32), [[0, 128], [204, 255]]),
        (np.zeros((2, 2), np.float32), [[0, 0], [0, 0]]),
        (np.full((2, 2), 40_000, np.uint16), [[255, 255], [255, 255]]),
    ],
    ids=["nan", "negative", "infinite", "signed", "empty", "even"],
)
def test_deep_images_keep_their_whole_range(save, pixels, expected):
    path = save("x.tif", pixels)
    assert read_image(path)[..., 0].tolist() == expected
    encoded, *_ = storable_image(path)
    assert decode_image(encoded)[..., 0].tolist() == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(save, photo, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save("x.jpg", photo, exif=exif, quality=100)
    encoded, size, *_ = storable_image(path)
    upright = np.array(PIL.ImageOps.exif_transpose(PIL.Image.open(path)))
    assert size == upright.shape[:2]
    assert np.array_equal(read_image(path), upright)
    assert np.array_equal(decode_image(encoded), upright)
    assert (encoded == path.read_bytes()) == (orientation == 1)


def test_other_exif_tags_of_the_wrong_type_do_not_matter(tmp_path, save, photo):
    """Some cameras store XResolution (0x011A), a fraction, as text."""
    tags = struct.pack("<H", 2) + struct.pack("<HHIHH", 0x0112, 3, 1, 3, 0)
    tags += struct.pack("<HHI4sI", 0x011A, 2, 3, b"72", 0)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags
    path = save("x.jpg", photo, exif=block, quality=100)
    expected = np.array(PIL.Image.open(path))[::-1, ::-1]
    assert np.array_equal(read_image(path), expected)
    encoded, _, orientation, *_ = storable_image(path)
    assert orientation == 3
    assert np.array_equal(decode_image(encoded), expected)
    mask = tmp_path / "x.png"
    PIL.Image.fromarray(expected[..., 0]).save(mask, exif=block)
    assert np.array_equal(open_mask(mask).values(), expected[::-1, ::-1, 0])


@pytest.mark.parametrize("block", [b"no header of a TIFF", b"II"])
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "palette.png"])
def test_a_damaged_exif_block_is_ignored(save, photo, name, block):
    image = PIL.Image.fromarray(photo)
    # Pillow reads the EXIF block of a JPEG earlier if the file does not state the resolution.
    options = {"dpi": (72, 72), "quality": 100}
    if name == "palette.png":
        image, options = image.quantize(8), {"transparency": bytes([255] * 8)}
    path = save(name, image, exif=b"Exif\0\0" + block, **options)
    expected = np.array(PIL.Image.open(path).convert("RGBA"))[..., :3]
    assert np.array_equal(read_image(path), expected)
    encoded, size, orientation, *_ = storable_image(path)
    assert (size, orientation) == (photo.shape[:2], 1)
    assert np.array_equal(decode_image(encoded), expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_images_are_upright_too(save, suffix, orientation):
    levels = np.arange(6 * 4, dtype=np.uint16).reshape(6, 4) * 2700
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = save(f"x.{suffix}", levels, exif=exif)
    turns = {1: 0, 3: 2, 6: 3, 8: 1}
    upright = np.rot90(levels, turns[orientation])
    expected = np.rint(upright * (255 / levels.max())).astype(np.uint8)
    assert np.array_equal(read_image(path)[..., 0], expected)
    encoded, size, *_ = storable_image(path)
    assert size == expected.shape
    assert np.array_equal(decode_image(encoded)[..., 0], expected)


def test_large_deep_images_are_worked_on_in_blocks(save):
    levels = np.arange(600 * 3, dtype=np.uint16).reshape(600, 3)
    expected = np.rint(levels * (255 / levels.max())).astype(np.uint8)
    assert np.array_equal(read_image(save("x.png", levels))[..., 0], expected)


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("x.png", lambda encoded: b"", "empty"),
        ("x.png", lambda encoded: b"GIF is what I am not", "not an image"),
        ("x.png", lambda encoded: encoded[: len(encoded) // 2], "truncated"),
        ("x.jpg", lambda encoded: encoded[: len(encoded) * 2 // 3], "truncated"),
        ("x.png", lambda encoded: encoded[:60] + b"\0\0\0" + encoded[63:], "damaged"),
    ],
)
def test_damaged_files_are_named(save, name, damage, complaint):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    path = save(name, noise)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DeepLabError, match=rf"{name}: .*{complaint}"):
        read_image(path)
    with pytest.raises(DeepLabError, match=rf"mine: .*{complaint}"):
        read_image(path.read_bytes(), name="mine")


def test_missing_directory_and_bomb(tmp_path, save, photo, monkeypatch):
    with pytest.raises(DeepLabError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DeepLabError, match="cannot be read"):
        read_image(tmp_path)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DeepLabError, match="more than 40 pixels"):
        read_image(save("bomb.png", photo))


def test_palette_mask_is_decoded_to_indices():
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    mask = PIL.Image.fromarray(indices, "L")
    mask = PIL.Image.frombytes("P", mask.size, indices.tobytes())
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    file = io.BytesIO()
    mask.save(file, "png")
    assert np.array_equal(decode_label(file.getvalue()), indices)
    assert np.array_equal(decode_label(encode_png(indices)), indices)


def test_16_bit_masks_are_decoded_as_they_were_encoded():
    indices = np.arange(0, 65536, 5000, dtype=np.uint16).reshape(2, 7)
    decoded = decode_label(encode_png(indices))
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, indices)


def test_a_stored_mask_must_be_indices():
    encoded = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    with pytest.raises(DeepLabError, match="8-bit or 16-bit"):
        decode_label(encoded)


def test_threads_share_the_memory_for_large_images(save, photo, monkeypatch):
    path, working, most = save("x.png", photo), [], []

    def work(_):
        with one_large_at_a_time(path, path.with_name("missing.png")):
            working.append(1)
            most.append(len(working))
            time.sleep(0.01)
            working.pop()

    for limit, together in ((10**9, True), (10, False)):
        monkeypatch.setattr(images, "LARGE_PIXELS", limit)
        most.clear()
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(8)))
        assert (max(most) > 1) == together
