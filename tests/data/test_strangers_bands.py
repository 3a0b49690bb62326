"""Images with any number of bands: files, storage, augmentation, and mistakes in them."""

import dataclasses
import functools
import io
import json
import re

import jax
import numpy as np
import PIL.Image
import pytest
import tifffile
from band_scenes import CLASSES, draw_bands, write_scenes, write_tiff
from flax.traverse_util import flatten_dict
from reporters import RecordingReporter
from stand_ins import write_workdir
from strangers import command
from tiny_recipe import write_tiny_recipe

import deeplab_jax
from deeplab_jax.checkpointing import read_model, read_variables
from deeplab_jax.data import ArrayDataset, Augmentation, open_dataset
from deeplab_jax.data.augmentation import augment
from deeplab_jax.data.codecs import decode_bands, decode_image, encode_bands, encoded_size
from deeplab_jax.data.crops import fitted, pad
from deeplab_jax.data.descriptors import Bands
from deeplab_jax.data.images import file_bands, read_image, storable_image
from deeplab_jax.data.statistics import BandCounter
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.runtimes import load_exported
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.models import Architecture
from deeplab_jax.models.preprocessing import preprocess
from deeplab_jax.training.initialization import for_bands, initialize_from
from deeplab_jax.training.workdir import network_of
from deeplab_jax.visualize import displayed

NOISE = np.random.default_rng(0).integers(0, 65536, (21, 17, 5), np.uint16)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Five 16-bit bands: six train and two val images of 48 × 48."""
    return write_scenes(tmp_path_factory.mktemp("scenes") / "source", 6, 2, size=48)


@pytest.fixture(scope="module")
def five_bands(tmp_path_factory):
    """An untrained model for five 16-bit bands."""
    return write_workdir(
        tmp_path_factory.mktemp("model") / "run",
        CLASSES,
        in_channels=5,
        image_dtype="uint16",
        preprocessing="mean_std",
        pixel_mean=(5000.0,) * 5,
        pixel_std=(1500.0,) * 5,
    )


def prepare(source, data_dir, *words):
    return command("prepare", "folder", f"--source={source}", f"--data_dir={data_dir}", *words)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 13])
def test_encoding_of_bands_is_lossless(count, dtype):
    random = np.random.default_rng(count)
    image = random.integers(0, np.iinfo(dtype).max + 1, (9, 14, count), dtype)
    encoded = encode_bands(image)
    assert np.array_equal(decode_bands(encoded, Bands(count, np.dtype(dtype).name)), image)
    assert encoded_size(encoded) == (9 * count, 14)
    for damaged, bands in ((b"", count), (encoded, 2 * 9 * count)):
        with pytest.raises(DeepLabError, match="the stored image cannot be decoded"):
            decode_bands(damaged, Bands(bands, np.dtype(dtype).name))


def test_sizes_are_read_of_more_stacked_pixels_than_pillow_opens(scenes, tmp_path, monkeypatch):
    assert prepare(scenes, tmp_path, "--bands=all")[0] == 0
    # Twice this number is above the pixels of one band, and below those of five.
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 48 * 48)
    assert open_dataset("folder", tmp_path, "val").image_sizes().tolist() == [[48, 48]] * 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"planarconfig": "separate"},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"compression": "deflate", "predictor": True},
        {"compression": "lzw"},
        {"compression": "zstd", "tile": (16, 16)},
    ],
    ids=str,
)
def test_every_layout_of_a_tiff_has_the_same_bands(tmp_path, options):
    pixels = np.moveaxis(NOISE, -1, 0) if "planarconfig" in options else NOISE
    path = write_tiff(tmp_path / "a.tif", pixels, **options)
    found = read_image(path, bands=Bands(5, "uint16"))
    assert found.dtype == np.uint16
    assert np.array_equal(found, NOISE)


def test_overviews_are_no_further_pictures(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(NOISE, photometric="minisblack", planarconfig="contig", subifds=0)
        writer.write(
            NOISE[::2, ::2].copy(), photometric="minisblack", planarconfig="contig", subfiletype=1
        )
    assert np.array_equal(read_image(path, bands=Bands(5, "uint16")), NOISE)


@pytest.mark.parametrize("described", ["first page", "all pages"])
@pytest.mark.parametrize("page", [1, 3])
def test_a_page_of_a_stack_of_imagej_is_read_by_its_number(tmp_path, described, page):
    path, stack = tmp_path / "a.tif", np.moveaxis(NOISE, -1, 0)
    if described == "first page":
        tifffile.imwrite(path, stack, imagej=True)
    else:
        with tifffile.TiffWriter(path) as writer:
            for plane in stack:
                writer.write(plane, description="ImageJ=1.54f\nimages=5\n", metadata=None)
    bands = Bands(1, "uint16")
    assert file_bands(path, page) == bands
    assert np.array_equal(read_image(path, bands=bands, page=page)[..., 0], stack[page - 1])
    assert storable_image(path, bands=bands, page=page).size == NOISE.shape[:2]
    with pytest.raises(DeepLabError, match="contains 5 pictures"):
        read_image(path, bands=bands)


def test_a_stack_of_imagej_with_only_one_page_is_refused(tmp_path):
    description = "ImageJ=1.54f\nimages=5\n"
    path = write_tiff(tmp_path / "a.tif", NOISE[..., 0], description=description, metadata=None)
    with pytest.raises(DeepLabError, match="contains 5 pictures"):
        read_image(path, bands=Bands(1, "uint16"))


def test_a_tiff_is_turned_by_its_orientation(tmp_path):
    path = write_tiff(tmp_path / "a.tif", NOISE, extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(read_image(path, bands=Bands(5, "uint16")), np.rot90(NOISE, -1))


@pytest.mark.parametrize("opacity", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "compression": "deflate"},
        {"planarconfig": "separate", "compression": "lzw", "tile": (16, 16), "byteorder": ">"},
        {"planarconfig": "separate", "extratags": [(274, "H", 1, 6, True)]},
        {"compression": "deflate"},
        {"compression": "zstd"},
        {"compression": "zstd", "extratags": [(274, "H", 1, 6, True)]},
    ],
    ids=str,
)
def test_colors_of_16_bits_are_read_from_every_layout_of_a_tiff(tmp_path, options, opacity):
    pixels = NOISE[..., : 3 + opacity].copy()
    pixels[..., 3:] = 65535
    expected = np.rint(NOISE[..., :3] * (255 / 65535)).astype(np.uint8)
    if "extratags" in options:
        expected = np.rot90(expected, -1)
    if "planarconfig" in options:
        pixels = np.moveaxis(pixels, -1, 0)
    extra = {"extrasamples": ["unassalpha"]} if opacity else {}
    path = write_tiff(tmp_path / "a.tif", pixels, photometric="rgb", **extra, **options)
    assert np.array_equal(read_image(path, intensity_range=(0, 65535)), expected)
    encoded = storable_image(path, (0, 65535)).encoded
    assert np.array_equal(decode_image(encoded), expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("limits", [None, (0, 4095)])
def test_gray_of_more_than_8_bits_with_a_white_zero_is_inverted(tmp_path, dtype, limits):
    pixels = (NOISE[..., 0] >> 4).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", pixels, photometric="miniswhite")
    levels = np.rint(pixels * (255 / (4095 if limits else float(pixels.max()))))
    found = read_image(path, intensity_range=limits)
    assert np.abs(found - (255 - levels)[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "photometric", "complaint"),
    [
        (NOISE[..., 0].astype(np.int8), "minisblack", "signed 8-bit numbers"),
        (NOISE[..., :4], "separated", "CMYK colors of more than 8 bits"),
    ],
    ids=["signed", "cmyk"],
)
def test_a_tiff_whose_values_would_be_misread_is_refused(tmp_path, pixels, photometric, complaint):
    path = write_tiff(tmp_path / "a.tif", pixels, photometric=photometric)
    for read in (read_image, storable_image):
        with pytest.raises(DeepLabError, match=rf"a\.tif: .*{complaint}"):
            read(path)


def test_numpy_files_hold_bands_too(tmp_path):
    np.save(tmp_path / "a.npy", NOISE)
    assert np.array_equal(read_image(tmp_path / "a.npy", bands=Bands(5, "uint16")), NOISE)
    assert file_bands(tmp_path / "a.npy") == Bands(5, "uint16")


def test_pictures_are_bands_in_the_order_red_green_blue(tmp_path):
    pixels = (NOISE[..., :4] >> 8).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", bands=Bands(4, "uint8")), pixels)


def test_chosen_bands_become_rgb_by_the_intensity_range(tmp_path):
    path = write_tiff(tmp_path / "a.tif", NOISE)
    bands = Bands(3, "uint8", (4, 3, 2))
    found = read_image(path, bands=bands, intensity_range=(1000, 60000))
    within = np.clip(NOISE[..., [3, 2, 1]].astype(float), 1000, 60000)
    assert np.array_equal(found, np.rint((within - 1000) * 255 / 59000).astype(np.uint8))


def test_each_band_is_augmented_as_an_image_of_its_own():
    augmentation = functools.partial(
        Augmentation, crop_size=(24, 30), rotation=20.0, scale_step=0.0
    )
    label = np.zeros(NOISE.shape[:2], np.uint8)
    fill = (10, 200, 3000, 40000, 65000)

    def crop(bands, seed):
        pixels = np.ascontiguousarray(NOISE[..., bands])
        example = {"image": pixels, "label": label, "image_id": "a"}
        own = augmentation(fill=tuple(fill[band] for band in bands))
        return augment(example, np.random.default_rng(seed), own)["image"]

    for seed in range(4):
        together = crop([0, 1, 2, 3, 4], seed)
        assert together.shape == (24, 30, 5)
        assert together.dtype == np.uint16
        for band in range(5):
            alone = crop([band], seed)
            assert alone.shape == (24, 30, 1)
            assert np.array_equal(together[..., band], alone[..., 0])
        assert np.array_equal(together[..., :3], crop([0, 1, 2], seed))


def test_downsampling_keeps_every_band():
    small = fitted(NOISE, (10, 10))
    assert small.shape == (10, 8, 5)
    for band in range(5):
        assert np.array_equal(small[..., band], fitted(NOISE[..., band].copy(), (10, 10)))


def test_statistics_are_exact():
    counter = BandCounter(5)
    for rows in np.array_split(NOISE, 3):
        counter.add(rows)
    mean, std = counter.result()
    np.testing.assert_allclose(mean, NOISE.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(std, NOISE.std((0, 1)), rtol=1e-6)
    counter = BandCounter(1)
    counter.add(np.full((3, 3, 1), 40000, np.uint16))
    assert counter.result() == ((40000.0,), (1.0,))


def test_a_prepared_dataset_keeps_bands_and_their_statistics(scenes, tmp_path):
    status, out, err = prepare(scenes, tmp_path, "--bands=all", "--report")
    assert status == 0, err
    assert "5 bands of uint16" in out
    dataset = open_dataset("folder", tmp_path, "train")
    drawn = np.stack([draw_bands(0, index, 48)[0] for index in range(6)])
    for index in range(6):
        assert np.array_equal(dataset[index]["image"], drawn[index])
    bands = dataset.descriptor.bands
    assert (bands.count, bands.dtype, bands.chosen) == (5, "uint16", None)
    np.testing.assert_allclose(bands.mean, drawn.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(bands.std, drawn.std((0, 1, 2)), rtol=1e-6)
    assert dataset.image_sizes().tolist() == [[48, 48]] * 6
    # The statistics are those of train in every split.
    assert open_dataset("folder", tmp_path, "val").descriptor.bands == bands


def test_three_chosen_bands_are_prepared_as_rgb(scenes, tmp_path):
    words = "--bands=3,2,1", "--intensity_range=300,10500"
    status, _, err = prepare(scenes, tmp_path, *words)
    assert status == 0, err
    dataset = open_dataset("folder", tmp_path, "train")
    assert dataset.descriptor.bands == Bands(3, "uint8", (3, 2, 1))
    assert dataset.descriptor.intensity_range == (300, 10500)
    picture = dataset[0]["image"]
    assert (picture.dtype, picture.shape) == (np.uint8, (48, 48, 3))
    within = np.clip(draw_bands(0, 0, 48)[0][..., [2, 1, 0]].astype(float), 300, 10500)
    assert np.array_equal(picture, np.rint((within - 300) * 255 / 10200).astype(np.uint8))


def test_arrays_have_bands_by_the_same_rules():
    images = NOISE[None].repeat(2, axis=0)
    masks = np.arange(2 * 21 * 17).reshape(2, 21, 17) % 2
    bands = ArrayDataset(images, masks).descriptor.bands
    assert (bands.count, bands.dtype) == (5, "uint16")
    np.testing.assert_allclose(bands.mean, NOISE.mean((0, 1)), rtol=1e-6)
    rgb = (images[..., :3] >> 8).astype(np.uint8)
    assert ArrayDataset(rgb, masks).descriptor.bands == Bands(3, "uint8")
    with pytest.raises(DeepLabError, match=r"arrays\[1\]: the image has 4 bands of uint16"):
        ArrayDataset([NOISE, NOISE[..., :4]], masks)
    with pytest.raises(DeepLabError, match=r"the image is float32\[21, 17, 5\]; give uint8"):
        ArrayDataset(images.astype(np.float32), masks)


@pytest.mark.parametrize("preprocessing", ["mean_std", "minus_one_one", "caffe_bgr", "mean"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_first_kernels_for_bands_answer_gray_as_before(preprocessing, count):
    """An image of equal, standardized bands has the response of a gray image of that deviation."""
    path = ("params", "backbone", "conv1", "kernel")
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 8)).astype(np.float32)
    source = Architecture("resnet_50", preprocessing=preprocessing)
    ours = Architecture(
        "resnet_50",
        in_channels=count,
        image_dtype="uint16",
        preprocessing="mean_std",
        pixel_mean=(1.0,) * count,
        pixel_std=(1.0,) * count,
    )
    wanted = {path: np.zeros((3, 3, count, 8), np.float32)}
    (found,) = for_bands({path: kernel}, wanted, source, ours).values()
    assert found.shape == (3, 3, count, 8)
    spread = {
        "mean_std": np.ones(3),
        "minus_one_one": np.array([0.229, 0.224, 0.225]) * 2,
        "mean": np.array([0.229, 0.224, 0.225]) * 255,
        "caffe_bgr": np.array([0.225, 0.224, 0.229]) * 255,
    }[preprocessing]
    gray = np.einsum("yxcf,c->yxf", kernel, spread)
    np.testing.assert_allclose(found.sum(axis=2), gray, rtol=1e-4, atol=1e-4)
    if count == 5:
        order = slice(None, None, -1) if preprocessing == "caffe_bgr" else slice(None)
        colors = (kernel * spread[:, None])[:, :, order] * 3 / 5
        np.testing.assert_allclose(found[:, :, :3], colors, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("theirs", "ours", "factor"),
    [
        ("minus_one_one", "minus_one_one", 1.0),
        ("caffe_bgr", "none", 1 / 257),
        ("none", "minus_one_one", 255 / 2),
    ],
)
def test_first_kernels_for_bands_follow_the_normalization_of_the_bands(theirs, ours, factor):
    path = ("params", "backbone", "conv1", "kernel")
    kernel = np.ones((1, 1, 3, 1), np.float32)
    source = Architecture("resnet_50", preprocessing=theirs)
    network = Architecture("resnet_50", in_channels=4, image_dtype="uint16", preprocessing=ours)
    wanted = {path: np.zeros((1, 1, 4, 1), np.float32)}
    (found,) = for_bands({path: kernel}, wanted, source, network).values()
    # Bands of the same brightness have the response of a gray image.
    assert found.sum() == pytest.approx(3 * factor, rel=1e-5)


def test_a_model_for_rgb_initializes_one_for_bands(five_bands, tmp_path):
    stored = read_model(five_bands)
    fresh = jax.tree.map(np.zeros_like, stored.variables)
    reporter = RecordingReporter()
    rgb = write_workdir(tmp_path / "rgb", CLASSES)
    network = stored.model.architecture
    found = initialize_from(fresh, rgb, reporter, "all", network).variables
    given, found = (flatten_dict(tree) for tree in (read_variables(rgb), found))
    (path,) = [path for path, array in given.items() if array.shape != found[path].shape]
    assert found[path].shape[2] == 5
    spread = 2 * np.array([0.229, 0.224, 0.225])[:, None]
    gray = (given[path] * spread).sum(2)
    np.testing.assert_allclose(found[path].sum(2), gray, rtol=1e-4, atol=1e-6)
    assert any("they are adapted to 5 bands" in text for text in reporter.messages)
    four = dataclasses.replace(network, in_channels=4, pixel_mean=(1.0,) * 4, pixel_std=(1.0,) * 4)
    with pytest.raises(DeepLabError, match="takes 5 bands, but the data has 4; give a model for"):
        initialize_from(fresh, five_bands, reporter, "all", four)


def test_a_predictor_says_which_bands_it_takes(five_bands):
    predictor = deeplab_jax.load(five_bands)
    with pytest.raises(DeepLabError, match=r"5 bands of uint16.*got three bands of uint8 \(RGB\)"):
        predictor(np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(DeepLabError, match=r"5 bands of uint16.*got 4 bands of uint16"):
        predictor(np.zeros((20, 20, 4), np.uint16))
    with pytest.raises(DeepLabError, match=r"5 bands of uint16.*got 5 bands of float32"):
        predictor(np.zeros((20, 20, 5), np.float32))
    with pytest.raises(DeepLabError, match=r"CRF requires 8-bit RGB.*5 bands"):
        predictor.with_options(InferenceOptions(crf="default"))


# Spoilt variants of the data: a function that spoils the folder, the flags, and the message.
def no_change(source):
    pass


def spoil_image(source, image, name="train/003.tif"):
    write_tiff(source / "images" / name, image)


SPOILT = {
    "a band that does not exist": (
        no_change,
        ["--bands=4,3,7"],
        r"000\.tif: there is no band 7; the file has 5 bands of uint16, numbered from 1",
    ),
    "band 0": (
        no_change,
        ["--bands=0,1,2"],
        r"bands=0,1,2 is illegal; give different",
    ),
    "a band twice": (no_change, ["--bands=1,1,2"], r"give different numbers from 1"),
    "no number": (no_change, ["--bands=red"], r"--bands=red is not legal; give positions of bands"),
    "bands with an intensity range": (
        no_change,
        ["--bands=all", "--intensity_range=0,4095"],
        r"cannot be applied to 5 bands of uint16, .*omit intensity_range, or choose three bands",
    ),
    "differing band counts": (
        lambda source: spoil_image(source, draw_bands(0, 3, 48)[0][..., :4].copy()),
        ["--bands=all"],
        r"003\.tif: the file has 4 bands of uint16, but the first image, .*000\.tif, has 5 bands",
    ),
    "two dtypes": (
        lambda source: spoil_image(source, (draw_bands(0, 3, 48)[0] >> 8).astype(np.uint8)),
        ["--bands=all"],
        r"003\.tif: the file has 5 bands of uint8, but the first image, .*, has 5 bands of uint16",
    ),
    "a float TIFF": (
        lambda source: spoil_image(source, draw_bands(0, 3, 48)[0].astype(np.float32)),
        ["--bands=all"],
        r"003\.tif: the file has 5 bands of float32; bands must be uint8 or uint16\. Rescale",
    ),
    "a picture among them": (
        lambda source: PIL.Image.new("RGB", (48, 48)).save(
            (source / "images/train/003.tif").rename(source / "images/train/003.png")
        ),
        ["--bands=all"],
        r"003\.png: the file has three bands of uint8 \(RGB\), but the first image",
    ),
    "pages in place of bands": (
        lambda source: tifffile.imwrite(
            source / "images/train/003.tif",
            np.moveaxis(draw_bands(0, 3, 48)[0], -1, 0),
            photometric="minisblack",
        ),
        ["--bands=all"],
        r"003\.tif: the TIFF file contains 5 pictures \(pages\); choose .* bands in one page",
    ),
    "a truncated file": (
        lambda source: (source / "images/train/003.tif").write_bytes(
            (source / "images/train/003.tif").read_bytes()[:9000]
        ),
        ["--bands=all"],
        r"003\.tif: truncated or damaged image",
    ),
    "an empty file": (
        lambda source: (source / "images/train/003.tif").write_bytes(b""),
        ["--bands=all"],
        r"003\.tif: the file is empty",
    ),
    "bands without the flag": (
        no_change,
        [],
        r"000\.tif: the TIFF has 5 bands; expected one .* or with --bands=all to keep all",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_bands_give_one_line_and_nothing_written(tmp_path, kind):
    spoil, flags, complaint = SPOILT[kind]
    source = write_scenes(tmp_path / "source", 4, 1, size=48)
    spoil(source)
    status, out, err = prepare(source, tmp_path / "data", *flags)
    assert status == 2
    lines = [line for line in err.splitlines() if line.startswith("deeplab-jax:")]
    assert len(lines) == 1, err
    assert re.search(complaint, lines[0]), lines
    assert not out
    assert not (tmp_path / "data").exists()


def test_compression_without_its_decoder_names_the_extra(tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", NOISE, compression="lzw")

    def fail(*_):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", fail)
    with pytest.raises(
        DeepLabError, match=r"a\.tif: the compression of this TIFF requires imagecodecs; run pip"
    ):
        read_image(path, bands=Bands(5, "uint16"))


@pytest.mark.parametrize("kind", ["plain", "deflate", "npy"])
def test_damaged_bytes_end_in_one_line_or_are_read(kind, capfd):
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, NOISE)
    else:
        compression = {"compression": "deflate"} if kind == "deflate" else {}
        write_tiff(file, NOISE, **compression)
    random, complaints = np.random.default_rng(0), []
    for number in range(120):
        damaged = bytearray(file.getvalue())
        if number % 2:
            del damaged[random.integers(len(damaged)) :]
        else:
            places = random.integers(0, 400, 3)
            for place, value in zip(places, random.integers(0, 256, 3), strict=True):
                damaged[place] = value
        try:
            image = read_image(bytes(damaged), bands=Bands(5, "uint16"), name="the file")
        except DeepLabError as error:
            complaints.append(str(error))
        else:
            assert image.dtype == np.uint16
    assert len(complaints) >= 60
    assert all(line.startswith("the file: ") for line in complaints)
    assert not any("\n" in line for line in complaints)
    assert capfd.readouterr() == ("", "")


def test_arrays_of_other_axes_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 40, 50), np.uint16))
    with pytest.raises(DeepLabError, match=r"with the bands first; give .height, width, bands."):
        file_bands(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DeepLabError, match=r"b\.npy: the array has the shape \[3\]"):
        file_bands(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda path: PIL.Image.new("RGB", (40, 30)).save(path.with_suffix(".jpg")),
            r"a\.jpg: the file has three bands of uint8 \(RGB\), but the model takes 5 bands of",
        ),
        (
            lambda path: write_tiff(path, NOISE[..., :4].copy()),
            r"a\.tif: the file has 4 bands of uint16, but the model takes 5 bands of uint16",
        ),
        (
            lambda path: write_tiff(path, (NOISE >> 8).astype(np.uint8)),
            r"a\.tif: the file has 5 bands of uint8, but the model takes 5 bands of uint16",
        ),
    ],
)
def test_a_model_of_bands_refuses_other_images(five_bands, tmp_path, make, complaint):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in/a.tif")
    words = f"--model={five_bands}", f"--output={tmp_path / 'out'}", tmp_path / "in"
    status, _, err = command("predict", *words)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert re.search(complaint, err)
    assert not (tmp_path / "out").exists()


def test_overlays_show_only_bands_of_the_model(five_bands, tmp_path):
    write_tiff(tmp_path / "a.tif", NOISE)
    words = f"--model={five_bands}", f"--output={tmp_path / 'out'}", tmp_path / "a.tif"
    status, _, err = command("predict", *words, "--overlay_bands=6,2,1")
    assert status == 2
    assert "--overlay_bands=6,2,1 is not legal; give one or three numbers from 1 to 5" in err


def test_a_description_keeps_the_bands(five_bands):
    stored = json.loads((five_bands / "model.json").read_text())
    assert stored["overrides"]["in_channels"] == 5
    assert stored["overrides"]["pixel_mean"] == [5000.0] * 5


@pytest.fixture(scope="module")
def whole_way(tmp_path_factory):
    """Five bands prepared, trained, evaluated and predicted by the commands; the folder."""
    folder = tmp_path_factory.mktemp("whole_way")
    write_scenes(folder / "source", 64, 16, size=64)
    config = write_tiny_recipe(
        folder / "tiny.py",
        data__name="folder",
        data__data_dir=str(folder / "data"),
        model__depth_multiplier=0.35,
        model__aspp_channels=32,
        model__decoder_convs=((3, 32),),
        augmentation__crop_size=(65, 65),
        training__num_steps=STEPS,
        schedule__warmup_steps=10,
        evaluation__every_steps=STEPS,
        checkpoint__every_steps=STEPS,
    )
    model, data = f"--model={folder / 'run'}", f"--data_dir={folder / 'data'}"
    for words in (
        ["prepare", "folder", f"--source={folder / 'source'}", data, "--bands=all"],
        ["train", f"--config={config}", f"--workdir={folder / 'run'}"],
        ["evaluate", model, "--dataset=folder", data, f"--output={folder / 'numbers'}"],
        ["predict", model, f"--output={folder / 'masks'}", folder / "source/images/val"],
    ):
        assert command(*words)[0] == 0
    return folder


STEPS = 300


@pytest.mark.slow
def test_the_class_that_only_infrared_shows_is_learned(whole_way):
    metrics = json.loads((whole_way / "numbers/metrics.json").read_text())
    truth = np.stack([draw_bands(1, index, 64)[1] for index in range(16)])
    # A constant answer, or any answer that is independent of bands 4 and 5, has at most this.
    chance = np.mean(truth[truth != 255] == CLASSES.index("hidden"))
    assert metrics["per_class_iou"]["hidden"] > max(0.6, 2 * chance)


@pytest.mark.slow
def test_predictions_are_the_pixels_that_evaluation_counts(whole_way):
    counts = np.zeros((3, 3), np.int64)
    for index in range(16):
        truth = draw_bands(1, index, 64)[1]
        mask = np.asarray(PIL.Image.open(whole_way / f"masks/{index:03}.png"))
        np.add.at(counts, (truth[truth != 255], mask[truth != 255]), 1)
    metrics = json.loads((whole_way / "numbers/metrics.json").read_text())
    assert np.array_equal(metrics["confusion_matrix"], counts)


@pytest.mark.slow
def test_a_model_keeps_the_statistics_of_its_dataset(whole_way):
    bands = open_dataset("folder", whole_way / "data", "train").descriptor.bands
    for stored in ("run/model.json", "run/config.json"):
        values = json.loads((whole_way / stored).read_text())
        network = values.get("overrides") or values["model"]
        assert network["preprocessing"] == "mean_std"
        assert (*network["pixel_mean"],) == bands.mean
        assert (*network["pixel_std"],) == bands.std
    architecture = deeplab_jax.load(whole_way / "run").model.architecture
    assert (architecture.in_channels, architecture.image_dtype) == (5, "uint16")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "tflite", "stablehlo"])
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_exported_masks_agree_with_predict(whole_way, format, place):
    if format == "tflite":
        pytest.importorskip("tensorflow", reason="it makes the file")
    path = whole_way / f"{place}.{format}"
    words = f"--model={whole_way / 'run'}", f"--format={format}", f"--output={path}"
    images = f"--verify={whole_way / 'source/images/val'}"
    options = f"--preprocessing={place}", "--size=65x65"
    status, _, err = command("export", *words, *options, images)
    assert status == 0, err
    exported = load_exported(path)
    assert exported.metadata.input["shape"][-1] == 5
    assert exported.metadata.pixels == np.uint16
    agreement = []
    for index in range(16):
        image = pad(draw_bands(1, index, 64)[0], (65, 65), exported.metadata.sizes["fill"])
        found = exported(image[None])[0, :64, :64]
        agreement.append(found == np.asarray(PIL.Image.open(whole_way / f"masks/{index:03}.png")))
    assert np.mean(agreement) >= 0.9999


@pytest.mark.slow
def test_a_run_starts_from_a_network_for_rgb(whole_way, tmp_path):
    """The rule of `for_bands` through `training.init_from`, with a step of training."""
    write_workdir(
        tmp_path / "rgb",
        CLASSES,
        depth_multiplier=0.35,
        aspp_channels=32,
        head="aspp",
        decoder="v3plus",
    )
    words = f"--config={whole_way / 'tiny.py'}", f"--workdir={tmp_path / 'run'}"
    start = "--config.training.init_from=" + str(tmp_path / "rgb")
    scope = "--config.training.init_scope=backbone"
    assert command("train", *words, start, scope, "--config.training.num_steps=1")[0] == 0


@pytest.mark.slow
def test_tiles_take_bands(whole_way):
    words = f"--model={whole_way / 'run'}", f"--output={whole_way / 'tiled'}"
    images = whole_way / "source/images/val"
    assert command("predict", *words, "--tile=65x65", images)[0] == 0
    for index in range(16):
        whole, tiled = (whole_way / f"{name}/{index:03}.png" for name in ("masks", "tiled"))
        assert np.array_equal(np.asarray(PIL.Image.open(whole)), np.asarray(PIL.Image.open(tiled)))


@pytest.mark.slow
def test_bands_are_quantized_and_pruned(whole_way):
    shared = f"--model={whole_way / 'run'}", "--dataset=folder", f"--data_dir={whole_way / 'data'}"
    limits = "--limit=4", "--split=val"
    output = f"--output={whole_way / 'int8'}"
    assert command("quantize", *shared, *limits, output)[0] == 0
    assert deeplab_jax.load(whole_way / "int8").bands == Bands(5, "uint16")
    structured = "--structured", "--macs=0.8", "--steps=2", f"--output={whole_way / 'half'}"
    assert command("prune", *shared, *limits, *structured)[0] == 0
    pruned = deeplab_jax.load(whole_way / "half").model.architecture
    assert pruned.pixel_mean == deeplab_jax.load(whole_way / "run").model.architecture.pixel_mean


def arrays(count, dtype, number=4):
    """Returns images and masks of two classes."""
    random = np.random.default_rng(count)
    images = random.integers(0, np.iinfo(dtype).max, (number, 33, 33, count), dtype)
    return images, random.integers(0, 2, (number, 33, 33))


@pytest.mark.parametrize(
    ("ours", "theirs", "changes", "complaint"),
    [
        (arrays(5, np.uint16), arrays(4, np.uint16), {}, "has 5 bands of uint16 and arrays has 4"),
        (arrays(5, np.uint16), arrays(5, np.uint8), {}, "uint16 and arrays has 5 bands of uint8"),
        (
            arrays(5, np.uint16),
            arrays(5, np.uint16),
            {"augmentation.photometric": 0.5},
            "photometric=0.5 requires 8-bit RGB images, but arrays has 5 bands",
        ),
        (
            arrays(5, np.uint16),
            arrays(5, np.uint16),
            {"model.preprocessing": "caffe_bgr"},
            "preprocessing='caffe_bgr' requires 8-bit RGB images, but in_channels=5",
        ),
        (
            arrays(5, np.uint16),
            arrays(5, np.uint16),
            {"model.pixel_mean": (1.0, 2.0, 3.0)},
            "pixel_mean has 3 numbers and pixel_std has 5, but in_channels=5",
        ),
    ],
)
def test_training_refuses_bands_that_do_not_fit(tmp_path, ours, theirs, changes, complaint):
    config = deeplab_jax.config.load("shapes:cpu")
    with config.model.ignore_type():
        for name, value in changes.items():
            section, field = name.split(".")
            config[section][field] = value
    with pytest.raises(DeepLabError, match=re.escape(complaint)):
        deeplab_jax.train(config, tmp_path / "run", ours, theirs)
    assert not (tmp_path / "run").exists()


def test_evaluation_refuses_other_bands(five_bands):
    predictor = deeplab_jax.load(five_bands)
    dataset = ArrayDataset(*arrays(3, np.uint8), class_names=CLASSES)
    with pytest.raises(
        DeepLabError, match="takes 5 bands of uint16, but the images of arrays have"
    ):
        deeplab_jax.evaluate(predictor, dataset)


def test_a_config_decides_over_the_statistics_of_the_dataset():
    config = deeplab_jax.config.load("shapes:cpu")
    bands = Bands(2, "uint16", mean=(100.0, 200.0), std=(10.0, 20.0))
    network = network_of(config, bands=bands)
    assert (network.in_channels, network.image_dtype) == (2, "uint16")
    assert (network.preprocessing, network.pixel_mean) == ("mean_std", (100.0, 200.0))
    assert network.mean_pixel == (100, 200)
    with config.model.ignore_type():
        config.model.pixel_mean = (1.0, 2.0)
    assert network_of(config, bands=bands).pixel_mean == (1.0, 2.0)
    assert network_of(config, bands=bands).pixel_std == (10.0, 20.0)
    with config.model.ignore_type():
        config.model.pixel_mean, config.model.preprocessing = None, "minus_one_one"
    network = network_of(config, bands=bands)
    assert (network.pixel_mean, network.mean_pixel) == ((), (32767, 32767))


def test_pixels_are_normalized_by_the_statistics():
    pixels = np.array([[[[100, 260]]]], np.uint16)
    options = {"image_dtype": "uint16", "mean": (80.0, 200.0), "std": (10.0, 20.0)}
    found = preprocess(pixels, "mean_std", np.float32, **options)
    assert found.tolist() == [[[[2.0, 3.0]]]]
    full = np.array([[[[0, 65535]]]], np.uint16)
    found = preprocess(full, "minus_one_one", np.float32, image_dtype="uint16")
    np.testing.assert_allclose(found, [[[[-1, 1]]]], atol=1e-6)


def test_bands_are_displayed_as_pictures():
    rgb = (NOISE[..., :3] >> 8).astype(np.uint8)
    assert displayed(rgb) is rgb
    ramp = np.linspace(0, 65535, 101 * 5).reshape(101, 1, 5).astype(np.uint16)
    shown = displayed(ramp, (5, 3, 1))
    assert (shown.dtype, shown.shape) == (np.uint8, (101, 1, 3))
    assert (shown[0] == 0).all()
    assert (shown[-1] == 255).all()
    assert abs(int(shown[50, 0, 0]) - 128) <= 1
    gray = displayed(ramp, (4,))
    assert np.array_equal(gray[..., 0], gray[..., 2])
    assert displayed(ramp[..., :2]).shape == (101, 1, 3)
    with pytest.raises(DeepLabError, match="bands 6, 1, 1 cannot be displayed"):
        displayed(ramp, (6, 1, 1))
