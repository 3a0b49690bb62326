"""Large images: read, predicted and written by rows, with the pixels of the whole image."""

import json
import os
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from reporters import RecordingReporter
from stand_ins import NUM_CLASSES, RedReader, noise, write_workdir

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data import image_rows
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.data.image_rows import open_rows
from deeplab_jax.data.images import read_image
from deeplab_jax.data.shapes import draw_scene
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions, Predictor, plan_files, predict_files
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import displayed, overlay

SIZE = (83, 131)
PIXELS = noise(*SIZE)
DEEP = PIXELS.astype(np.uint16) * 16
OPACITY = np.full((*SIZE, 1), 255, np.uint8)
OPACITY[:9] = 0
TILED = {"tile": (32, 48), "photometric": "rgb", "compression": "zlib"}
PAINTED = {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256)}
# Pixels and arguments of tifffile.
LAYOUTS = {
    "tiles": (PIXELS, TILED),
    "tiles with predictor": (PIXELS, TILED | {"predictor": True}),
    "tiles of LZW": (PIXELS, TILED | {"compression": "lzw"}),
    "tiles without compression": (PIXELS, TILED | {"compression": None}),
    "strips": (PIXELS, {"photometric": "rgb", "rowsperstrip": 7, "compression": "zlib"}),
    "strips of packbits": (
        PIXELS,
        {"photometric": "rgb", "rowsperstrip": 16, "compression": "packbits"},
    ),
    "one strip": (PIXELS, {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 83}),
    "one strip without compression": (PIXELS, {"photometric": "rgb"}),
    "planes": (PIXELS.transpose(2, 0, 1), TILED | {"planarconfig": "separate"}),
    "planes without compression": (
        PIXELS.transpose(2, 0, 1),
        {"photometric": "rgb", "planarconfig": "separate"},
    ),
    "gray": (PIXELS[..., 0], {"photometric": "minisblack", "tile": (16, 16)}),
    "opacity": (np.dstack([PIXELS, OPACITY]), TILED | {"extrasamples": ["unassalpha"]}),
    "constant opacity": (
        np.dstack([DEEP, np.full((*SIZE, 1), 255, np.uint16)]),
        TILED | {"extrasamples": ["unassalpha"]},
    ),
    "16 bits": (DEEP, TILED),
    "16 bits of gray": (DEEP[..., 1], {"photometric": "minisblack", "tile": (64, 16)}),
    "signed 16 bits": (
        DEEP[..., 1].astype(np.int16) - 99,
        {"photometric": "minisblack", "rowsperstrip": 9, "compression": "zlib"},
    ),
    "floats": (PIXELS[..., 1] / np.float32(7), {"photometric": "minisblack", "tile": (16, 64)}),
}


def write_tiff(path: pathlib.Path, layout: str, **options: object) -> pathlib.Path:
    pixels, arguments = LAYOUTS[layout]
    with tifffile.TiffWriter(path, **options) as file:
        file.write(pixels, metadata=None, **arguments)
    return path


def rows_of(path: pathlib.Path, **options: object) -> np.ndarray:
    """Reads an image as tiles are read: each part overlaps the one before."""
    with open_rows(path, rows_above=0, **options) as image:
        assert not isinstance(image, image_rows._WholeImage)
        height = image.size[0]
        spans = [(max(0, first - 10), first + 20) for first in range(0, height, 20)]
        parts = [image.read(first, min(last, height)) for first, last in spans]
        return np.concatenate([parts[0], *(part[10:] for part in parts[1:])])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_have_the_pixels_of_the_whole_image(tmp_path, layout):
    path = write_tiff(tmp_path / "x.tif", layout)
    np.testing.assert_array_equal(rows_of(path), read_image(path))
    fixed = {"intensity_range": (100.0, 3000.0)}
    np.testing.assert_array_equal(rows_of(path, **fixed), read_image(path, **fixed))


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"byteorder": ">"}])
@pytest.mark.parametrize("layout", ["tiles", "16 bits", "one strip without compression"])
def test_bigtiff_and_byte_order_do_not_matter(tmp_path, layout, options):
    path = write_tiff(tmp_path / "x.tif", layout, **options)
    expected = read_image(write_tiff(tmp_path / "plain.tif", layout))
    np.testing.assert_array_equal(rows_of(path), expected)


def test_jpeg_tiles_are_decoded_as_pillow_decodes_them(tmp_path):
    smooth = cv2.GaussianBlur(PIXELS, (0, 0), 5)
    path = tmp_path / "x.tif"
    tile = {"tile": (32, 48), "photometric": "ycbcr", "compression": "jpeg"}
    tifffile.imwrite(path, smooth, subsampling=(1, 1), **tile)
    difference = np.abs(rows_of(path).astype(int) - read_image(path))
    assert difference.max() <= 2


def test_overviews_of_a_page_are_no_pages(tmp_path):
    """Cloud-optimized GeoTIFFs hold smaller copies after, or before, the image."""
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS[::2, ::2], subfiletype=1, metadata=None, **TILED)
        file.write(PIXELS, metadata=None, **TILED)
        file.write(PIXELS[::4, ::4], subfiletype=1, metadata=None, **TILED)
    np.testing.assert_array_equal(read_image(path), PIXELS)
    np.testing.assert_array_equal(rows_of(path), PIXELS)


def test_an_unusual_layout_is_decoded_whole(tmp_path):
    path = tmp_path / "x.tif"
    PIL.Image.fromarray(PIXELS).quantize(16).save(path)
    with open_rows(path, rows_above=0) as image:
        np.testing.assert_array_equal(image.read(3, 9), read_image(path)[3:9])
    with (
        pytest.raises(DeepLabError, match=r"10,873 pixels, but a TIFF with .* to 1,000 pixels"),
        open_rows(path, rows_above=0, max_pixels=1000),
    ):
        pass


TURNED = TILED | {"extratags": [(274, "H", 1, 6, True)]}
SEEN_THROUGH = {
    "photometric": "minisblack",
    "planarconfig": "contig",
    "extrasamples": ["unassalpha"],
}


@pytest.mark.parametrize(
    ("pixels", "options", "command"),
    [
        (PIXELS[..., 0], PAINTED, "gdal_translate -expand rgb -co TILED=YES"),
        (DEEP[..., 0], {"photometric": "miniswhite"}, "-ot Byte -scale LOW HIGH 255 0 -co"),
        (DEEP[..., 0] / 7, {"photometric": "minisblack"}, "-ot Byte -scale LOW HIGH 0 255 -co"),
        (np.dstack([PIXELS[..., :1], OPACITY]), SEEN_THROUGH, "gdal_translate -b 1 -co"),
        (PIXELS, TURNED, "vips autorot IN.tif 'OUT.tif[tile,bigtiff]'"),
        (*LAYOUTS["one strip"], "`gdal_translate -co TILED=YES"),
    ],
    ids=["palette", "white is zero", "64 bits", "opacity", "orientation", "strips"],
)
def test_the_advice_removes_the_reason_for_decoding_a_tiff_whole(
    tmp_path, pixels, options, command
):
    tifffile.imwrite(tmp_path / "x.tif", pixels, metadata=None, **options)
    with (
        pytest.raises(DeepLabError, match=re.escape(command)),
        open_rows(tmp_path / "x.tif", rows_above=0, max_pixels=1000),
    ):
        pass


def make_predictor(num_classes: int = NUM_CLASSES, **options: object) -> Predictor:
    palette = bit_interleaved_palette(num_classes)
    names = [str(index) for index in range(num_classes)]
    return Predictor(RedReader(), {}, names, palette, options=InferenceOptions(**options))


@pytest.fixture
def small_limit(monkeypatch):
    """Images above 2,000 pixels are larger than Pillow reads."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)


def open_tiff(path: pathlib.Path) -> tuple[np.ndarray, dict[int, object]]:
    """Returns the pixels and the tags of a BigTIFF of one page."""
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        (page,) = file.pages
        return page.asarray(), {tag.code: tag.value for tag in page.tags}


@pytest.mark.parametrize("num_classes", [4, 300])
@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("size", [(83, 131), (300, 33), (1, 600), (257, 270)])
def test_files_by_rows_are_those_of_the_image_in_memory(
    tmp_path, monkeypatch, size, kind, num_classes
):
    image, path = noise(*size), tmp_path / "x.tif"
    tifffile.imwrite(path, image, photometric="rgb", tile=(16, 32))
    predictor = make_predictor(num_classes, tile=(49, 65), overlap=0.1)
    if kind == "tif":
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    jobs = plan_files([path], tmp_path / "out", by_rows=True, num_classes=num_classes)
    reporter = RecordingReporter()
    predict_files(predictor, jobs, reporter)
    written = {item.suffix for item in (tmp_path / "out").iterdir()}
    assert written == {f".{kind}"}

    def opened(path: pathlib.Path) -> np.ndarray:
        return open_tiff(path)[0] if kind == "tif" else np.asarray(PIL.Image.open(path))

    expected = predictor(image)
    np.testing.assert_array_equal(opened(jobs[0].class_map), expected)
    pictured = overlay(image, expected, predictor.palette)
    np.testing.assert_array_equal(opened(jobs[0].overlay), pictured)
    if num_classes == 300:
        assert opened(jobs[0].class_map).dtype == np.uint16
        assert opened(jobs[0].colors).shape == (*size, 3)


@pytest.mark.parametrize(
    ("pixels", "options"), [(PIXELS, TILED), (PIXELS[..., 0], PAINTED)], ids=["rgb", "palette"]
)
def test_a_large_mask_has_the_palette_and_the_place_on_earth(
    tmp_path, small_limit, pixels, options
):
    place = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (34735, "H", 4, (1, 1, 0, 0), True)]
    # The name of the coordinate system may be in UTF-8.
    place.append((34737, 2, 0, "Gauß-Krüger|".encode(), True))
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, pixels, extratags=place, metadata=None, **options)
    predictor = make_predictor(tile=(49, 65), overlap=0.1)
    jobs = plan_files([path], tmp_path / "out", by_rows=True)
    predict_files(predictor, jobs, Reporter())
    for target in (jobs[0].class_map, jobs[0].overlay):
        _, tags = open_tiff(target)
        assert tags[259] == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert tags[322] == tags[323] == 256
        assert (tags[33550], tags[34735]) == ((0.5, 0.5, 0.0), (1, 1, 0, 0))
        assert tags[34737] == "Gauß-Krüger|"
    _, tags = open_tiff(jobs[0].class_map)
    assert tags[262] == tifffile.PHOTOMETRIC.PALETTE
    colors = np.reshape(tags[320], (3, 256))[:, :NUM_CLASSES].T // 257
    np.testing.assert_array_equal(colors, predictor.palette)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_stopped_run_leaves_nothing(tmp_path, monkeypatch, kind):
    path = write_tiff(tmp_path / "x.tif", "tiles")
    if kind == "tif":
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    jobs = plan_files([path], tmp_path / "out", by_rows=True)

    class Stopping(Reporter):
        def track(self, items, description, total=None):
            yield from list(items)[:4]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(make_predictor(tile=(49, 65), overlap=0.1), jobs, Stopping())
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_counts_the_tiles_of_all_images(tmp_path):
    paths = [write_tiff(tmp_path / f"{name}.tif", name) for name in ("tiles", "strips")]
    predictor = make_predictor(tile=(49, 65), overlap=0.1)
    lines = []

    class Counting(Reporter):
        def track(self, items, description, total=None):
            for item in items:
                lines.append((description, len(items)))
                yield item

    predict_files(predictor, plan_files(paths, tmp_path / "out", by_rows=True), Counting())
    count = 2 * len(predictor.tiling.places(SIZE))
    assert lines == [("predicting, tile", count)] * count


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("model") / "run", ["sky", "tree", "road"])


def truncated(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def overwritten(path: pathlib.Path) -> None:
    """Overwrites the middle of the compressed tiles."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)


def with_near_infrared(path: pathlib.Path) -> None:
    pixels = np.dstack([PIXELS, PIXELS[..., 0]])
    tifffile.imwrite(path, pixels, **TILED, extrasamples=["unassalpha"])


def with_five_bands(path: pathlib.Path) -> None:
    pixels = np.dstack([PIXELS, PIXELS[..., :2]])
    tifffile.imwrite(path, pixels, **TILED, extrasamples=["unspecified"] * 2)


def with_pages(path: pathlib.Path) -> None:
    tifffile.imwrite(path, np.stack([PIXELS, PIXELS, PIXELS]), photometric="rgb", tile=(32, 48))


def painted(path: pathlib.Path) -> None:
    """Replaces the file with a palette image, which is decoded whole."""
    PIL.Image.fromarray(PIXELS).quantize(16).save(path, format="TIFF")


TILE = "--tile=49x65"
SPOILT = {
    "no tiles": (None, [], r"more than 2,000 pixels; .*`predict --tile=1025x1025`"),
    "CRF": (None, [TILE, "--crf"], "more than 2,000 pixels; .*without --crf"),
    "overlay bands": (
        None,
        [TILE, "--overlay_bands=1"],
        "more than 2,000 pixels; .*without .*--overlay_bands",
    ),
    "probabilities": (None, [TILE, "--probabilities"], "omit --probabilities"),
    "truncated": (truncated, [TILE], "truncated or damaged"),
    "overwritten": (overwritten, [TILE], "truncated or damaged"),
    "near infrared": (with_near_infrared, [TILE], "of the pixels are partly transparent"),
    "five bands": (with_five_bands, [TILE], "5 bands"),
    "pages": (with_pages, [TILE], r"contains 3 pictures \(pages\); choose one with --page=N"),
    "no such page": (with_pages, [TILE, "--page=4"], "no page 4; the file contains 3 pages"),
    "page of one": (None, [TILE, "--page=2"], "there is no page 2; the file contains 1 page"),
    "page 0": (None, [TILE, "--page=0"], "page"),
    "decoded whole": (painted, [TILE], r"a TIFF with the colors PALETTE .* to 5,000 pixels"),
    "tifffile is missing": (None, [TILE], r"pip install 'deeplab_jax\[tiff\]'"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    fault, model, tmp_path, capsys, monkeypatch, small_limit
):
    monkeypatch.setattr(image_rows, "WHOLE_PIXELS", 5000)
    if fault == "tifffile is missing":
        monkeypatch.setitem(sys.modules, "tifffile", None)
    spoil, flags, complaint = SPOILT[fault]
    path, output = write_tiff(tmp_path / "x.tif", "tiles"), tmp_path / "out"
    if spoil:
        spoil(path)
    arguments = ["predict", f"--model={model}", f"--output={output}", *flags, str(path)]
    status = run(arguments, Console())
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1), error
    assert "x.tif" in error or fault == "page 0"
    assert re.search(complaint, error), error
    assert not output.exists()


def test_a_png_beyond_the_limit_of_whole_images_is_refused(tmp_path, small_limit):
    path = tmp_path / "x.png"
    PIL.Image.fromarray(PIXELS).save(path)
    with open_rows(path) as image:
        np.testing.assert_array_equal(image.read(0, SIZE[0]), PIXELS)
    with (
        pytest.raises(DeepLabError, match=r"more than 9,000 pixels; convert it to a tiled TIFF"),
        open_rows(path, max_pixels=9000),
    ):
        pass


def test_a_large_array_has_the_limit_of_whole_images(tmp_path, small_limit):
    path = tmp_path / "x.npy"
    np.save(path, PIXELS)
    assert plan_files([path], tmp_path / "out", by_rows=True)[0].class_map.suffix == ".tif"
    with open_rows(path) as image:
        np.testing.assert_array_equal(image.read(0, SIZE[0]), PIXELS)
    with pytest.raises(DeepLabError, match=r"more than 9,000 pixels; cut the image into tiles"):
        read_image(path, max_pixels=9000)


def test_a_large_png_without_tifffile_is_refused_before_it_is_predicted(
    tmp_path, monkeypatch, small_limit
):
    path = tmp_path / "x.png"
    PIL.Image.fromarray(PIXELS).save(path)
    assert plan_files([path], tmp_path / "out", by_rows=True)[0].class_map.suffix == ".tif"
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DeepLabError, match=r"x\.png, a TIFF, requires .*'deeplab_jax\[tiff\]'"):
        plan_files([path], tmp_path / "out", by_rows=True)
    plan_files([path], tmp_path / "out")


def test_overlays_of_tiled_predictions_show_the_chosen_bands(tmp_path):
    path = tmp_path / "x.png"
    PIL.Image.fromarray(PIXELS).save(path)
    predictor, bands = make_predictor(tile=(49, 65), overlap=0.1), (3, 1, 2)
    (job,) = jobs = plan_files([path], tmp_path / "out", by_rows=True)
    predict_files(predictor, jobs, Reporter(), bands)
    pictured = overlay(displayed(PIXELS, bands), predictor(PIXELS), predictor.palette)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(job.overlay)), pictured)


# The peak of the whole process; that of getrusage would include the process that started it.
PROGRAM = """
import json, pathlib, re, sys

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run

status = run(json.loads(sys.argv[1]), Console())
peak = re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(f"status {status}, {int(peak[1]) / 1000:.0f} MB")
"""


@pytest.mark.slow
def test_an_image_of_36_million_pixels_is_predicted_in_700_megabytes(tmp_path, model):
    scene, _ = draw_scene(seed=0, split=0, index=0, size=600)
    path, output = tmp_path / "large.tif", tmp_path / "out"
    image = np.tile(scene, (10, 10, 1))
    tifffile.imwrite(path, image, photometric="rgb", tile=(256, 256), compression="zlib")
    del image
    arguments = ["predict", f"--model={model}", f"--output={output}", "--tile=513x513", str(path)]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    status, megabytes = result.stdout.split()[-3].strip(","), float(result.stdout.split()[-2])
    assert status == "0", result.stderr
    assert megabytes < 700
    with PIL.Image.open(output / "large.png") as mask:
        assert mask.size == (6000, 6000)
