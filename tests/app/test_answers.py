"""What the app answers, without the app."""

import threading

import numpy as np
import pytest
from PIL import Image
from stand_ins import NUM_CLASSES, RedReader

from deeplab_jax.app.service import (
    MODELS_KEPT,
    Limits,
    LoadingError,
    SegmentationService,
    shown_names,
)
from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import Predictor
from deeplab_jax.visualize import heat_map

PALETTE = bit_interleaved_palette(NUM_CLASSES)
NAMES = ("sky", "<script>", "road", "car")
# Colors of the levels 0 to 255 of uncertainty.
COLORS = heat_map((np.arange(256)[None] + 0.5) / 255)[0].astype(int)


def predictor(_="red"):
    return Predictor(RedReader(), {}, NAMES, PALETTE, (65, 65))


def write(path, *size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_request_returns_mask_overlay_and_legend(tmp_path):
    pixels = write(tmp_path / "image.png", 40, 60)
    answer = SegmentationService(["red"], predictor, Limits()).answer(tmp_path / "image.png", "red")
    classes = pixels[..., 0] % 4
    np.testing.assert_array_equal(answer.mask, np.array(PALETTE)[classes])
    assert answer.overlay.shape == (40, 60, 3)
    expected = {name: np.mean(classes == index) for index, name in enumerate(NAMES)}
    assert answer.areas == pytest.approx(expected)
    assert list(answer.areas.values()) == sorted(answer.areas.values(), reverse=True)
    assert "&lt;script&gt;" in answer.legend
    assert "<script>" not in answer.legend
    assert set(answer.milliseconds) == {"decode", "network", "draw"}


@pytest.mark.parametrize("size", [(40, 60), (150, 301)])
def test_uncertainty_is_drawn_from_black_to_yellow(tmp_path, size):
    pixels = write(tmp_path / "image.png", *size)
    service = SegmentationService(["red"], predictor, Limits())
    odds = np.exp((pixels[..., 1] + 1.0) / 64)
    largest, others = odds / (odds + 3), 1 / (odds + 3)
    entropy = -(largest * np.log(largest) + 3 * others * np.log(others)) / np.log(4)
    for kind, values in (("confidence", 1 - largest), ("entropy", entropy)):
        drawn = service.uncertainty(tmp_path / "image.png", "red", kind)
        assert drawn.shape == (*size, 3)
        assert drawn.dtype == np.uint8
        if size == (40, 60):
            # One level may differ by rounding.
            levels = np.argmin(abs(drawn.astype(int)[..., None, :] - COLORS).sum(-1), axis=-1)
            assert abs(levels - np.floor(values * 255)).max() <= 1
    with pytest.raises(DeepLabError, match="did you mean 'entropy'"):
        service.uncertainty(tmp_path / "image.png", "red", "entrophy")
    with pytest.raises(DeepLabError, match="did you mean 'red'"):
        service.uncertainty(tmp_path / "image.png", "rod", "entropy")


def test_larger_images_are_shrunk_and_their_masks_enlarged(tmp_path):
    write(tmp_path / "image.png", 150, 301)
    answer = SegmentationService(["red"], predictor, Limits()).answer(tmp_path / "image.png", "red")
    assert answer.mask.shape == answer.overlay.shape == (150, 301, 3)


def test_images_of_more_than_eight_bits_are_read_as_the_model_was_trained(tmp_path):
    values = np.array([[0, 1000], [2000, 4000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "scan.png")

    def load(_):
        return Predictor(RedReader(), {}, NAMES, PALETTE, (65, 65), intensity_range=(0, 8000))

    answer = SegmentationService(["scans"], load, Limits()).answer(tmp_path / "scan.png", "scans")
    classes = np.round(values * (255 / 8000)).astype(int) % 4
    np.testing.assert_array_equal(answer.mask, np.array(PALETTE)[classes])


def test_limits(tmp_path):
    write(tmp_path / "image.png", 100, 110)
    path, text = tmp_path / "image.png", tmp_path / "text.png"
    text.write_text("no image")
    answers = SegmentationService(["red"], predictor, Limits(megapixels=0.01))
    with pytest.raises(DeepLabError, match=r"more than 0.01 million pixels"):
        answers.answer(path, "red")
    with pytest.raises(DeepLabError, match=r"larger than 0\.001 MB"):
        SegmentationService(["red"], predictor, Limits(megabytes=0.001)).answer(path, "red")
    with pytest.raises(DeepLabError, match="this file: not an image"):
        answers.answer(text, "red")
    with pytest.raises(DeepLabError, match="did you mean 'red'"):
        answers.answer(path, "rod")


def test_the_limit_applies_to_the_page_that_is_read_and_not_to_a_smaller_copy(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    page, path = np.zeros((200, 200, 3), np.uint8), tmp_path / "page.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(page[:10, :10], subfiletype=1, photometric="rgb")
        file.write(page, photometric="rgb")
    service = SegmentationService(["red"], predictor, Limits(megapixels=0.03))
    with pytest.raises(DeepLabError, match=r"more than 0.03 million pixels"):
        service.answer(path, "red")
    answer = SegmentationService(["red"], predictor, Limits()).answer(path, "red")
    assert answer.mask.shape == page.shape


def test_a_timed_out_request_is_refused_and_the_next_is_served(tmp_path):
    write(tmp_path / "image.png", 8, 8)
    busy = threading.Event()

    def load(name):
        if name == "slow":
            busy.wait(30)
        return predictor()

    answers = SegmentationService(["red", "slow"], load, Limits(seconds=0.2))
    for name in ("slow", "red"):
        with pytest.raises(DeepLabError, match=r"no result within 0.2 s"):
            answers.answer(tmp_path / "image.png", name)
    busy.set()
    answers.warm_up("red")
    assert SegmentationService(["red"], load, Limits()).answer(tmp_path / "image.png", "red")


def test_few_models_are_kept(tmp_path):
    write(tmp_path / "image.png", 8, 8)
    loaded = []

    def load(name):
        loaded.append(name)
        return predictor()

    answers = SegmentationService(["a", "b", "c"], load, Limits())
    for name in ("a", "b", "a", "c", "a", "b"):
        answers.answer(tmp_path / "image.png", name)
    assert MODELS_KEPT == 2
    assert loaded == ["a", "b", "c", "b"]


@pytest.mark.parametrize(
    ("references", "names"),
    [
        (["runs/camvid", "deeplabv3_voc"], ["camvid", "deeplabv3_voc"]),
        (["/srv/private/voc/"], ["voc"]),
        (["/srv/a/voc", "/srv/b/voc", "/srv/a/road"], ["a/voc", "b/voc", "road"]),
        (["voc", "models/voc"], ["voc", "models/voc"]),
        (["/voc", "voc"], ["voc", "voc (2)"]),
        (["/srv/voc", "/srv/voc"], ["voc"]),
        (["gs://bucket/runs/voc"], ["voc"]),
        (["~/models/../voc"], ["voc"]),
    ],
)
def test_models_are_shown_by_name(references, names):
    shown = shown_names(references)
    assert list(shown) == names
    assert set(shown.values()) == set(references)


def test_a_directory_given_by_dots_is_shown_by_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "voc" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "voc")
    assert list(shown_names(["."])) == ["voc"]
    monkeypatch.chdir(tmp_path / "voc" / "deep")
    assert list(shown_names([".."])) == ["voc"]


@pytest.mark.parametrize("kind", [DeepLabError, FileNotFoundError])
def test_the_reason_why_a_model_is_not_loaded_is_not_for_visitors(tmp_path, caplog, kind):
    write(tmp_path / "image.png", 10, 10)

    def load(_):
        raise kind("/srv/private/voc holds no model.json")

    answers = SegmentationService(["voc"], load, Limits())
    with pytest.raises(DeepLabError, match="voc") as refused:
        answers.answer(tmp_path / "image.png", "voc")
    assert "/srv" not in str(refused.value)
    assert "/srv/private/voc holds no model.json" in caplog.text
    # The operator who starts the server gets the full reason.
    with pytest.raises(LoadingError, match="/srv/private/voc"):
        answers.warm_up("voc")
