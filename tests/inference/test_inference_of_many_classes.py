"""A model of 300 classes, exact by construction: files, videos, the app, evaluation, searches."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from deeplab_jax.app.service import Limits, SegmentationService
from deeplab_jax.crf import CRFParameters
from deeplab_jax.data import ArrayDataset
from deeplab_jax.data.descriptors import describe
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation import CRFGrid, Evaluator, compare_strategies, evaluate, search_crf
from deeplab_jax.inference import (
    InferenceOptions,
    Predictor,
    changed_share,
    check_submission,
    class_areas,
    find_objects,
    plan_files,
    plan_videos,
    predict_files,
    predict_video,
    stable_class_maps,
)
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import Panel, colorize, contact_sheet, overlay

COUNT = 300
NAMES = tuple(f"class {index}" for index in range(COUNT))
PALETTE = describe("", NAMES).palette


class WideReader(nn.Module):
    """Gives each pixel the class `red + 44`, 44..299, with certainty."""

    architecture: Architecture = Architecture("mobilenet_v2", num_classes=COUNT)
    kind: str = "folded"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        return 20 * jax.nn.one_hot(image[..., 0].astype(jnp.int32) + 44, COUNT)

    def class_map_and_logits(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = self(image)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32), logits


@pytest.fixture
def predictor():
    return Predictor(WideReader(), {}, NAMES, PALETTE, source="a test")


def image_of(size, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image[:2, :3, 0] = 255
    image[2, :, 0] = 255 - 44
    return image


def truth_of(image):
    """Returns what the model says of most pixels, class 43 where it says 299, and void."""
    truth = image[..., 0].astype(np.uint16) + 44
    truth[truth == 299] = 43
    truth[-2:] = 65535
    return truth


@pytest.fixture
def dataset():
    images = [image_of(size, seed) for seed, size in enumerate([(19, 33), (33, 17)])]
    return ArrayDataset(images, [truth_of(image) for image in images], NAMES)


def counted(dataset):
    counts = np.zeros((COUNT, COUNT), np.int64)
    for index in range(len(dataset)):
        example = dataset[index]
        known = example["label"] != 65535
        prediction = example["image"][..., 0].astype(int) + 44
        np.add.at(counts, (example["label"][known], prediction[known]), 1)
    return counts


def test_predictions_are_16_bit_grey_and_a_colour_picture(predictor, tmp_path):
    image = image_of((21, 30))
    Image.fromarray(image).save(tmp_path / "a.png")
    out = tmp_path / "out"
    jobs = plan_files([tmp_path / "a.png"], out, num_classes=COUNT)
    predict_files(predictor, jobs, Reporter())
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "a_colors.png", "a_overlay.png"]
    with Image.open(out / "a.png") as mask:
        assert mask.mode.startswith("I;16")
        found = np.asarray(mask)
    expected = image[..., 0].astype(np.uint16) + 44
    assert np.array_equal(found, expected)
    # The file as other programs read it.
    other = cv2.imread(str(out / "a.png"), cv2.IMREAD_UNCHANGED)
    assert other.dtype == np.uint16
    assert np.array_equal(other, expected)
    colors = np.asarray(Image.open(out / "a_colors.png"))
    assert np.array_equal(colors, np.array(PALETTE, np.uint8)[expected])
    with pytest.raises(DeepLabError, match="exists"):
        plan_files([tmp_path / "a.png"], out, num_classes=COUNT)


def test_up_to_255_classes_a_palette_shows_the_colours(tmp_path):
    (tmp_path / "a.png").touch()
    (job,) = plan_files([tmp_path / "a.png"], tmp_path / "out", num_classes=255)
    assert [path.name for path in job.targets] == ["a.png", "a_overlay.png"]


def test_servers_of_fewer_classes_refuse(predictor):
    for server in ("voc", "cityscapes"):
        with pytest.raises(DeepLabError, match="300 classes"):
            check_submission(predictor, server)


def test_pictures_colour_all_classes_and_void():
    class_map = np.array([[43, 255, 299, 65535]], np.int32)
    colors = colorize(class_map, PALETTE)[0].tolist()
    assert colors == [*(list(PALETTE[index]) for index in (43, 255, 299)), [224, 224, 224]]
    image = np.full((1, 4, 3), 100, np.uint8)
    assert overlay(image, class_map, PALETTE).shape == image.shape
    rows = [Panel(image, class_map.astype(np.uint16), class_map)]
    sheet = {tuple(pixel) for pixel in contact_sheet(rows, NAMES, PALETTE).reshape(-1, 3).tolist()}
    assert {PALETTE[43], PALETTE[255], PALETTE[299], (224, 224, 224)} <= sheet


@pytest.mark.parametrize("limit", [None, (17, 33)])
def test_masks_of_videos_are_16_bit(predictor, tmp_path, limit):
    path = tmp_path / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 32))
    for seed in range(2):
        writer.write(cv2.resize(image_of((4, 8), seed), (64, 32)))
    writer.release()
    (job,) = plan_videos([path], tmp_path / "out")
    predict_video(predictor, job, Reporter(), limit)
    capture = cv2.VideoCapture(str(path))
    for index in range(2):
        frame = capture.read()[1]
        mask = np.asarray(Image.open(job.masks / f"{index:06}.png"))
        assert mask.dtype == np.uint16
        assert mask.shape == (32, 64)
        assert mask.min() >= 44
        if limit is None:
            assert np.array_equal(mask, frame[..., 2].astype(np.uint16) + 44)
    assert cv2.VideoCapture(str(job.overlay)).read()[0]


def test_the_app_shows_the_classes_of_more_than_8_bits(predictor, tmp_path):
    image = np.zeros((20, 34, 3), np.uint8)
    image[:, :16, 0], image[:, 16:, 0] = 255, 255 - 44
    Image.fromarray(image).save(tmp_path / "a.png")
    for size in ((65, 65), (17, 17)):
        answers = SegmentationService(
            ["wide"], lambda _, size=size: predictor.with_inference_size(size), Limits()
        )
        answer = answers.answer(tmp_path / "a.png", "wide")
        assert list(answer.areas) == ["class 255", "class 299"]
        assert answer.areas["class 299"] == 16 / 34
        assert np.array_equal(answer.mask[0, 0], PALETTE[299])


OPTIONS = {
    "plain": InferenceOptions(),
    "tiles": InferenceOptions(tile=(17, 17), overlap=0.0),
    "flip": InferenceOptions(flip=True),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_evaluation_counts_every_class(predictor, dataset, name, tmp_path):
    metrics = evaluate(
        predictor, dataset, options=OPTIONS[name], output=tmp_path, trimap_widths=(2,)
    )
    counts = counted(dataset)
    assert np.array_equal(metrics["confusion_matrix"], counts)
    # The case of the byte: 299 is 43 modulo 256, and must not be right.
    assert counts[43, 299] > 0
    assert metrics["per_class_iou"]["class 43"] == metrics["per_class_iou"]["class 299"] == 0
    assert metrics["per_class_iou"]["class 255"] == 1
    assert metrics["pixel_accuracy"] == np.trace(counts) / counts.sum() < 1
    assert (tmp_path / "contact_sheet.png").exists()


def test_strategies_count_every_class(predictor, dataset):
    (plain,) = compare_strategies(predictor, dataset, {"plain": InferenceOptions()})
    metrics = evaluate(predictor, dataset)
    assert plain["mean_iou"] == metrics["mean_iou"]
    assert plain["boundary_f_score"] == metrics["boundary_f_score"]


def test_299_for_43_scores_0(predictor):
    image = np.full((17, 17, 3), 255, np.uint8)
    dataset = ArrayDataset([image], [np.full((17, 17), 43, np.uint16)], NAMES)
    metrics = evaluate(predictor, dataset)
    assert metrics["mean_iou"] == metrics["pixel_accuracy"] == 0
    quick = Evaluator(predictor.model, dataset).run(predictor.variables)
    assert quick.counts[43, 299] == 17 * 17
    assert quick.mean_iou == 0


def test_the_evaluation_of_training_counts_every_class(predictor, dataset):
    found = Evaluator(predictor.model, dataset, batch_size=3).run(predictor.variables)
    assert np.array_equal(found.counts, counted(dataset))


def test_a_crf_that_changes_nothing_keeps_the_classes(predictor, dataset):
    still = CRFParameters(0.0, 1.0, 1.0, smoothness_weight=0.0)
    refined = predictor.with_options(InferenceOptions(crf=still))
    metrics = evaluate(refined, dataset)
    assert np.array_equal(metrics["confusion_matrix"], counted(dataset))
    grid = CRFGrid((0.0,), (1.0,), (1.0,), dataclasses.replace(still))
    found = search_crf(predictor, dataset, grid)
    assert found["mean_iou"] == found["mean_iou_without_crf"] == metrics["mean_iou"]


def test_objects_of_any_class():
    class_map = np.array([[255, 255, 0, 299, 65535]], np.int32)
    found = find_objects(class_map, num_classes=COUNT)
    assert [region.class_index for region in found] == [0, 255, 299]
    found = find_objects(class_map, probabilities=np.ones((1, 5, COUNT), np.float32))
    assert [region.class_index for region in found] == [0, 255, 299]
    found = find_objects(class_map.astype(np.uint16))
    assert [region.class_index for region in found] == [0, 255, 299]
    # 255 may be void as well as a class.
    with pytest.raises(DeepLabError, match="num_classes"):
        find_objects(class_map)
    found = find_objects(class_map[:, 2:])
    assert [region.class_index for region in found] == [0, 299]


def test_class_maps_over_time():
    first, second = np.array([[255, 0, 65535, 299]]), np.array([[43, 0, 7, 299]])
    assert changed_share(first, second, COUNT) == 1 / 3
    assert changed_share(first.astype(np.uint16), second.astype(np.uint16)) == 1 / 3
    areas = class_areas(first, COUNT)
    assert areas.shape == (COUNT,)
    assert areas[[255, 0, 299]].tolist() == [1, 1, 1]
    # A cut from class 255 to class 299 all over: the average starts anew.
    frames = [np.eye(COUNT, dtype=np.float32)[np.full((2, 2), one)] for one in (255, 299)]
    shown = list(stable_class_maps(frames, keep=0.9, cut=0.5))
    assert [one[0, 0] for one in shown] == [255, 299]
