"""Files that hold more than one RGB picture are refused by every reader, never cut down."""

import dataclasses
import io
import struct

import cv2
import numpy as np
import PIL.Image
import PIL.TiffImagePlugin
import pytest

from deeplab_jax.data.codecs import decode_image
from deeplab_jax.data.descriptors import RGB
from deeplab_jax.data.image_layout import refuse_bands_of_unreadable_tiff, tiff_directories
from deeplab_jax.data.images import OWN_RANGE, TRANSPARENT, open_image, read_image, storable_image
from deeplab_jax.data.intensity import GAP
from deeplab_jax.data.masks import open_mask
from deeplab_jax.errors import DeepLabError

NOISE = np.random.default_rng(0).integers(0, 256, (21, 17, 6), np.uint8)
PHOTO = PIL.Image.fromarray(np.ascontiguousarray(NOISE[..., :3]))


def tiff(pixels: np.ndarray, *, photometric: int, extra: tuple[int, ...] = ()) -> bytes:
    """Returns an uncompressed TIFF of any number of bands, written without a library."""
    height, width, bands = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    shorts = {258: [bits] * bands, 338: list(extra)}
    tags = {256: width, 257: height, 259: 1, 262: photometric, 273: 8, 277: bands, 278: height}
    tags |= {279: len(data)}
    entries, tail, start = [], b"", 8 + len(data) + 2 + 12 * (len(tags) + 1 + bool(extra)) + 4
    for tag in sorted([*tags, *(tag for tag, values in shorts.items() if values)]):
        if tag in tags:
            entries.append(struct.pack("<HHII", tag, 4, 1, tags[tag]))
            continue
        values = struct.pack(f"<{len(shorts[tag])}H", *shorts[tag])
        if len(values) > 4:
            entries.append(struct.pack("<HHII", tag, 3, len(shorts[tag]), start + len(tail)))
            tail += values
        else:
            entries.append(struct.pack("<HHI", tag, 3, len(shorts[tag])) + values.ljust(4, b"\0"))
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    return header + data + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + tail


def pages(kind: str) -> bytes:
    file = io.BytesIO()
    others = [PHOTO.rotate(180), PHOTO.rotate(90, expand=False)]
    PHOTO.save(file, kind, save_all=True, append_images=others)
    return file.getvalue()


def test_gray_with_premultiplied_opacity_is_read(tmp_path):
    gray, path = NOISE[..., :1], tmp_path / "x.tif"
    pixels = np.dstack([gray, np.full_like(gray, 255)])
    path.write_bytes(tiff(pixels, photometric=1, extra=(1,)))
    assert np.array_equal(read_image(path), np.repeat(gray, 3, axis=-1))
    assert np.array_equal(open_mask(path).values(), gray[..., 0])
    encoded, *_ = storable_image(path)
    assert np.array_equal(decode_image(encoded), np.repeat(gray, 3, axis=-1))


def test_a_compression_that_pillow_does_not_read_is_named(tmp_path):
    plain, lerc = (struct.pack("<HHII", 259, 4, 1, code) for code in (1, 34887))
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(NOISE[..., :3], photometric=2).replace(plain, lerc))
    for read in (read_image, storable_image, open_mask):
        with pytest.raises(DeepLabError, match=r"x\.tif: the TIFF has the compression 34887"):
            read(path)


@pytest.mark.parametrize("kind", ["tiff", "gif", "png", "webp", "mpo"])
def test_several_pictures_in_one_file_are_refused_with_their_number(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(pages(kind))
    for read in (read_image, storable_image, open_mask):
        with pytest.raises(DeepLabError, match=rf"x\.{kind}: .* 3 pictures"):
            read(path)
    with pytest.raises(DeepLabError, match=r"mine: .* 3 pictures"):
        read_image(path.read_bytes(), name="mine")


@pytest.mark.parametrize("kind", [0x010001, 0], ids=["large thumbnail", "undefined"])
def test_smaller_pictures_in_a_camera_file_are_ignored(tmp_path, kind):
    """MPO marks a smaller copy as a large thumbnail, and the gain map of HDR as undefined."""
    alone, file = io.BytesIO(), io.BytesIO()
    PHOTO.save(alone, "jpeg")
    PHOTO.save(file, "mpo", save_all=True, append_images=[PHOTO.resize((8, 10))])
    content = file.getvalue()
    size = len(content) - content.rfind(b"\xff\xd8\xff")
    assert content.count(struct.pack("<LL", 0, size)) == 1
    path = tmp_path / "x.jpg"
    path.write_bytes(content.replace(struct.pack("<LL", 0, size), struct.pack("<LL", kind, size)))
    expected = read_image(alone.getvalue())
    assert np.array_equal(read_image(path), expected)
    assert np.array_equal(decode_image(storable_image(path).encoded), expected)


@pytest.mark.parametrize("size", [(17, 21), (17, 10), (8, 21), (34, 42)])
def test_undefined_pictures_that_are_not_smaller_are_refused(size):
    file = io.BytesIO()
    PHOTO.save(file, "mpo", save_all=True, append_images=[PHOTO.resize(size)])
    with pytest.raises(DeepLabError, match="2 pictures"):
        read_image(file.getvalue())


def test_an_icon_of_several_sizes_is_refused():
    file = io.BytesIO()
    PHOTO.resize((64, 64)).save(file, "ico", sizes=[(16, 16), (32, 32)])
    with pytest.raises(DeepLabError, match="2 pictures"):
        read_image(file.getvalue())


@pytest.mark.parametrize("kind", ["tiff", "gif", "png", "webp"])
def test_one_picture_in_a_format_for_several_is_read(kind):
    file = io.BytesIO()
    PHOTO.save(file, kind, save_all=True, append_images=[])
    assert read_image(file.getvalue()).shape == (21, 17, 3)


@pytest.mark.parametrize(
    ("bands", "photometric", "extra"),
    [
        (4, 2, (0,)),  # RGB + a band of unknown meaning
        (4, 1, (0, 0, 0)),  # four grey bands, as remote sensing writes them
        (5, 2, (0, 0)),
        (5, 2, (2, 0)),  # RGB, opacity and another
        (6, 1, (0, 0, 0, 0, 0)),
        (2, 1, (0,)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_further_bands_of_a_tiff_are_refused_with_their_number(
    tmp_path, bands, photometric, extra, dtype
):
    path = tmp_path / "scene.tif"
    path.write_bytes(tiff(NOISE[..., :bands].astype(dtype), photometric=photometric, extra=extra))
    for read in (read_image, storable_image, open_mask):
        with pytest.raises(DeepLabError, match=rf"scene\.tif: .*{bands} bands"):
            read(path)


@pytest.mark.parametrize(("bands", "photometric"), [(1, 1), (3, 2)])
def test_the_made_up_tiff_is_one(bands, photometric):
    pixels = np.ascontiguousarray(NOISE[..., :bands])
    read = read_image(tiff(pixels, photometric=photometric))
    assert np.array_equal(read, np.broadcast_to(pixels, (21, 17, 3)))


@pytest.mark.parametrize("writer", ["opencv 8", "opencv 16", "pillow", "declared opacity", "png"])
def test_near_infrared_stored_as_opacity_is_refused(tmp_path, writer):
    path, pixels = tmp_path / f"x.{'png' if writer == 'png' else 'tif'}", NOISE[..., :4].copy()
    if writer.startswith("opencv"):
        cv2.imwrite(str(path), pixels.astype(np.uint16) * 250 if "16" in writer else pixels)
    elif writer == "declared opacity":
        path.write_bytes(tiff(pixels, photometric=2, extra=(2,)))
    else:
        PIL.Image.fromarray(pixels).save(path)
    for read in (read_image, storable_image):
        with pytest.raises(DeepLabError, match=r"x\.\w+: .* partly transparent.* band"):
            read(path)


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
@pytest.mark.parametrize("opacity", ["opaque", "constant", "cutout"])
def test_a_photograph_with_opacity_keeps_its_colors_with_a_warning(tmp_path, kind, opacity):
    pixels = np.dstack([NOISE[..., :3], np.full((21, 17), 255 if opacity == "opaque" else 90)])
    pixels = pixels.astype(np.uint8)
    if opacity == "cutout":
        pixels[..., 3] = 255
        pixels[:7, :, 3] = 0
    path = tmp_path / f"x.{kind}"
    options = {"lossless": True, "exact": True} if kind == "webp" else {}
    PIL.Image.fromarray(pixels).save(path, **options)
    assert np.array_equal(read_image(path), NOISE[..., :3])
    assert storable_image(path).notes == ((TRANSPARENT,) if opacity == "cutout" else ())


def test_deep_images_report_whether_the_range_is_their_own(tmp_path):
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), NOISE[..., 0].astype(np.uint16) * 9)
    assert storable_image(path).notes == (OWN_RANGE,)
    assert storable_image(path, (0.0, 4095.0)).notes == ()


@pytest.mark.parametrize("missing", [-9999, -3.4e38])
def test_a_value_for_missing_data_in_the_own_range_is_reported(tmp_path, missing):
    path, values = tmp_path / "x.tif", NOISE[..., 0].astype(np.float32) / 255
    PIL.Image.fromarray(values).save(path)
    assert storable_image(path).notes == (OWN_RANGE,)
    values[:5] = missing
    PIL.Image.fromarray(values).save(path)
    assert storable_image(path).notes == (OWN_RANGE, GAP)
    assert storable_image(path, (0.0, 1.0)).notes == ()
    np.save(tmp_path / "x.npy", np.dstack([values] * 3))
    chosen = dataclasses.replace(RGB, chosen=(3, 2, 1))
    assert storable_image(tmp_path / "x.npy", bands=chosen).notes == (OWN_RANGE, GAP)


def test_an_undecodable_tiff_of_floats_names_its_bands(tmp_path):
    with pytest.raises(DeepLabError, match="3 bands of 32 bits"):
        open_image(tiff(NOISE[..., :3].astype(np.float32), photometric=2), "x")


@pytest.mark.parametrize("offset", [2**64 - 1, 2**62])
def test_positions_behind_the_end_of_a_tiff_end_its_list_of_pictures(tmp_path, offset):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II+\0\x08\0\0\0" + offset.to_bytes(8, "little"))
    with path.open("rb") as file:
        assert tiff_directories(file) == []
    for read in (read_image, open_mask):
        with pytest.raises(DeepLabError, match=r"a\.tif: "):
            read(path)


@pytest.mark.parametrize("header", [b"II*\0", b"MM\0*"])
def test_a_tiff_truncated_before_its_directory_is_not_described(header):
    # The caller reports the unreadable file; its bands are unknown.
    refuse_bands_of_unreadable_tiff(header + (1000).to_bytes(4, "little"), "a.tif")


def test_the_bands_of_an_unreadable_tiff_are_described():
    encoded = tiff(NOISE[..., :5], photometric=1)
    with pytest.raises(DeepLabError, match=r"a\.tif: .*5"):
        refuse_bands_of_unreadable_tiff(encoded, "a.tif")
