"""Videos, against what the predictor says of each decoded frame."""

import itertools
import types

import cv2
import numpy as np
import pytest
from memory_bucket import use_memory_bucket
from PIL import Image
from reporters import RecordingReporter
from stand_ins import NUM_CLASSES, RedReader

from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.inference import (
    Predictor,
    check_masks,
    plan_camera,
    plan_files,
    plan_videos,
    predict_video,
    video_files,
)
from deeplab_jax.inference import videos as module
from deeplab_jax.inference.videos import network_size, produced_ahead
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize.class_maps import class_map_picture

PALETTE = bit_interleaved_palette(NUM_CLASSES)
FRAMES = 2 * module.BATCH + 3


@pytest.fixture
def predictor():
    return Predictor(RedReader(), {}, ["sky", "tree", "road", "car"], PALETTE, (97, 97))


def write_video(path, size=(36, 52), count=FRAMES, rate=10, codec="mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, size[::-1])
    random = np.random.default_rng(0)
    picture = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), size[::-1])
    for index in range(count):
        writer.write(np.roll(picture, 3 * index, axis=1))
    writer.release()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".wmv", "WMV2"), (".flv", "FLV1"), (".3gp", "mp4v"), (".MTS", "mp4v")]
)
def test_formats_of_cameras_and_of_windows_are_videos(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"walk{suffix}", size=(48, 64), codec=codec)
    for given in (path, tmp_path):
        (job,) = plan_videos([given], tmp_path / "out")
        assert job.source == path
    source = video_files.VideoSource(path)
    assert source.read().shape == (48, 64, 3)
    source.close()


def test_every_frame_gets_its_own_mask(predictor, tmp_path):
    path = write_video(tmp_path / "walk.mp4")
    (job,) = plan_videos([path], tmp_path / "out")
    report = predict_video(predictor, job, Reporter())
    assert (job.overlay, job.masks) == (tmp_path / "out/walk.mp4", tmp_path / "out/walk_masks")
    masks = sorted(job.masks.iterdir())
    assert [mask.name for mask in masks] == [f"{index:06}.png" for index in range(FRAMES)]
    for frame, mask_path in zip(frames_of(path), masks, strict=True):
        mask = Image.open(mask_path)
        assert mask.mode == "P"
        assert mask.getpalette()[: 3 * NUM_CLASSES] == np.ravel(PALETTE).tolist()
        np.testing.assert_array_equal(np.asarray(mask), predictor(frame[..., ::-1].copy()))
    shown = frames_of(job.overlay)
    assert len(shown) == FRAMES
    assert shown[0].shape == (36, 52, 3)
    assert (report.frames, report.rate, report.network_size) == (FRAMES, 10, (36, 52))
    assert set(report.milliseconds) == {"decode", "network", "draw", "end to end"}
    assert f"{FRAMES} frames (1.9 s)" in str(report)


def test_frames_are_shrunk_to_a_size_that_suits_the_network(predictor, tmp_path):
    path = write_video(tmp_path / "walk.mp4", size=(72, 96), count=3)
    (job,) = plan_videos([path], tmp_path / "out")
    report = predict_video(predictor, job, Reporter(), limit=(49, 49), seconds=0.2)
    assert report.network_size == (33, 49)
    assert report.frames == 2
    assert np.asarray(Image.open(job.masks / "000001.png")).shape == (72, 96)


@pytest.mark.parametrize("size", [(75, 101), (76, 101), (75, 100), (33, 17)])
def test_frames_of_odd_size_keep_it(predictor, tmp_path, monkeypatch, size):
    class Odd(_Camera):
        def __init__(self, source):
            super().__init__(source)
            self.frame = np.full((*size, 3), 120, np.uint8)
            self.frame[:, : size[1] // 2] = 20

    job = plan_camera(0, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "VideoCapture", Odd)
        reporter = RecordingReporter()
        report = predict_video(predictor, job, reporter, seconds=0.2)
    shown = frames_of(job.overlay)
    assert len(shown) == report.frames
    assert {frame.shape for frame in shown} == {(*size, 3)}
    assert np.asarray(Image.open(job.masks / "000000.png")).shape == size
    # Each half of the frame is one class: the overlay keeps its place, and its last row and column.
    mean = shown[0].mean(axis=-1)
    assert mean[-1, 0] < mean[-1, -1]
    assert reporter.warnings == []


def test_an_encoder_that_rounds_sizes_is_reported(predictor, tmp_path, monkeypatch):
    class Odd(_Camera):
        def __init__(self, source):
            super().__init__(source)
            self.frame = np.full((75, 101, 3), 120, np.uint8)

    job, reporter = plan_camera(0, tmp_path), RecordingReporter()
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "VideoCapture", Odd)
        patched.setattr(video_files, "LAYER_START", b"another codec")
        predict_video(predictor, job, reporter, seconds=0.1)
    assert frames_of(job.overlay)[0].shape == (76, 102, 3)
    (warning,) = reporter.warnings
    assert "camera_0.mp4 has 76x102 pixels (height x width) instead of 75x101, since" in warning


@pytest.mark.parametrize("rate", [23.976, 59.94, 65.537, 100.001, 119.873, 239.653, 999.99])
def test_all_frame_rates_can_be_written(predictor, tmp_path, rate):
    job, frame = plan_camera(0, tmp_path), np.zeros((16, 16, 3), np.uint8)
    with video_files.writing(job, rate, (16, 16), PALETTE, Reporter()) as write:
        write(frame, frame[..., 0])
    capture = cv2.VideoCapture(str(job.overlay))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(rate, rel=1e-4)


def test_the_overlay_of_a_camera_plays_as_fast_as_it_was_recorded(tmp_path, monkeypatch):
    clock = itertools.count(0, 0.2)
    stopped = types.SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(video_files, "time", stopped)
    job, frame = plan_camera(0, tmp_path), np.zeros((16, 16, 3), np.uint8)
    with video_files.writing(job, 30, (16, 16), PALETTE, Reporter()) as write:
        for _ in range(7):
            write(frame, frame[..., 0])
    assert cv2.VideoCapture(str(job.overlay)).get(cv2.CAP_PROP_FPS) == pytest.approx(5, rel=1e-3)
    assert len(frames_of(job.overlay)) == 7


@pytest.mark.parametrize("name", ["2026-11-30T12:30:00.mp4", "cam:front%02d.mp4"])
def test_names_may_contain_a_colon(predictor, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "walk.mp4", count=2).rename(name)
    (job,) = plan_videos([name], "out:1")
    assert predict_video(predictor, job, Reporter()).frames == 2
    assert len(frames_of(job.overlay.absolute())) == 2


def test_results_may_be_in_a_bucket(predictor, tmp_path, monkeypatch):
    use_memory_bucket(monkeypatch)
    monkeypatch.chdir(tmp_path)
    path = write_video(tmp_path / "walk.mp4", count=3)
    for seconds, count in ((None, 3), (0.1, 1)):
        (job,) = plan_videos([path], "s3://bucket/out", overwrite=True)
        predict_video(predictor, job, Reporter(), seconds=seconds)
        assert as_path("s3://bucket/out/walk.mp4").read_bytes()
        masks = sorted(one.name for one in as_path("s3://bucket/out/walk_masks").iterdir())
        assert masks == [f"{number:06}.png" for number in range(count)]
    assert [one.name for one in tmp_path.iterdir()] == ["walk.mp4"]
    assert str(plan_camera(0, "s3://bucket/new").masks) == "s3://bucket/new/camera_0_masks"


@pytest.mark.parametrize("exists", [True, False])
def test_masks_are_written_where_a_link_leads(predictor, tmp_path, exists):
    path, linked = write_video(tmp_path / "walk.mp4", count=2), tmp_path / "linked"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/walk_masks").symlink_to(linked)
    if exists:
        linked.mkdir()
        (linked / "old.png").touch()
    (job,) = plan_videos([path], tmp_path / "out", overwrite=True)
    predict_video(predictor, job, Reporter())
    assert sorted(one.name for one in linked.iterdir()) == ["000000.png", "000001.png"]
    assert job.masks.is_symlink()


def test_nothing_is_written_into_the_masks_of_a_video(tmp_path):
    (tmp_path / "in/a_masks").mkdir(parents=True)
    (tmp_path / "in/a.mp4").touch()
    videos = plan_videos([tmp_path / "in"], tmp_path / "out")
    (tmp_path / "in/a_masks/b.png").touch()
    jobs = plan_files([tmp_path / "in"], tmp_path / "out")
    with pytest.raises(DeepLabError, match=r"a_masks/b\.png would be inside .*out/a_masks"):
        check_masks(videos, jobs)
    (tmp_path / "in/a_masks/c.mp4").touch()
    with pytest.raises(DeepLabError, match=r"a_masks/c\.mp4 would be inside .*out/a_masks"):
        plan_videos([tmp_path / "in"], tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_the_duration_must_be_finite_and_above_zero(predictor, tmp_path, seconds):
    with pytest.raises(DeepLabError, match="a finite number above 0"):
        predict_video(predictor, plan_camera(0, tmp_path), Reporter(), seconds=seconds)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "limit", "align_corners", "expected"),
    [
        ((360, 480), (257, 257), True, (193, 257)),
        ((480, 360), (257, 257), True, (257, 193)),
        ((200, 200), (257, 257), True, (200, 200)),
        ((360, 480), None, True, (360, 480)),
        ((1080, 1920), (513, 513), False, (288, 512)),
        ((10, 4000), (65, 65), True, (17, 65)),
    ],
)
def test_network_size(size, limit, align_corners, expected):
    model = RedReader(Architecture("mobilenet_v2", align_corners=align_corners))
    predictor = Predictor(model, {}, "abcd", PALETTE)
    assert network_size(predictor, size, limit) == expected


def test_jobs(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("in/a.mp4", "in/deep/b.AVI", "in/photo.jpg"):
        (tmp_path / name).touch()
    jobs = plan_videos([tmp_path / "in", tmp_path / "photo.jpg"], tmp_path / "in/out")
    assert [job.masks.relative_to(tmp_path / "in/out").as_posix() for job in jobs] == [
        "a_masks",
        "deep/b_masks",
    ]
    with pytest.raises(DeepLabError, match="is an input and is never overwritten"):
        plan_videos([tmp_path / "in/a.mp4"], tmp_path / "in", overwrite=True)
    with pytest.raises(DeepLabError, match="no such file"):
        plan_videos([tmp_path / "none.mp4"], tmp_path / "out")
    (tmp_path / "out/camera_0_masks").mkdir(parents=True)
    with pytest.raises(DeepLabError, match="exists"):
        plan_camera(0, tmp_path / "out")
    assert plan_camera(0, tmp_path / "out", overwrite=True).source == 0


def test_videos_below_the_output_are_inputs_unless_a_run_wrote_them(tmp_path):
    (tmp_path / "in/out").mkdir(parents=True)
    for name in ("in/a.mp4", "in/out/a.mp4"):
        (tmp_path / name).touch()
    for output in (tmp_path, tmp_path / "elsewhere"):
        jobs = plan_videos([tmp_path / "in"], output)
        assert [job.overlay for job in jobs] == [output / "a.mp4", output / "out/a.mp4"]
    (job,) = plan_videos([tmp_path / "in"], tmp_path / "in/out", overwrite=True)
    assert job.source == tmp_path / "in/a.mp4"
    with pytest.raises(DeepLabError, match=r"a\.mp4 is a file"):
        plan_videos([tmp_path / "in"], tmp_path / "in/a.mp4")


def test_a_non_video_file_writes_no_output(predictor, tmp_path):
    path = tmp_path / "text.mp4"
    path.write_bytes(b"this is no video" * 100)
    (job,) = plan_videos([path], tmp_path / "out")
    with pytest.raises(DeepLabError, match=r"text.mp4 cannot be read as a video"):
        predict_video(predictor, job, Reporter())
    assert not (tmp_path / "out").exists()


def test_missing_frames_are_reported(predictor, tmp_path, monkeypatch):
    path, listens = write_video(tmp_path / "walk.mp4"), RecordingReporter()
    (job,) = plan_videos([path], tmp_path / "out")
    opened = cv2.VideoCapture

    class Cut:
        """No subclass: collecting one of OpenCV's types as garbage ends the process."""

        def __init__(self, source):
            self._capture = opened(source)

        def get(self, name):
            return self._capture.get(name) + (name == cv2.CAP_PROP_FRAME_COUNT)

        def __getattr__(self, name):
            return getattr(self._capture, name)

    with monkeypatch.context() as patched:
        patched.setattr(cv2, "VideoCapture", Cut)
        predict_video(predictor, job, listens)
    (warning,) = listens.warnings
    assert f"only {FRAMES} of {FRAMES + 1} frames could be decoded" in warning
    predict_video(predictor, job, listens)
    assert len(listens.warnings) == 1


class _Fails(Reporter):
    def track(self, items, description, total=None):
        for number, item in enumerate(items):
            if number == module.BATCH + 1:
                raise RuntimeError("stop")
            yield item


def test_a_failure_midway_leaves_the_old_files(predictor, tmp_path):
    path = write_video(tmp_path / "walk.mp4")
    (job,) = plan_videos([path], tmp_path / "out")
    predict_video(predictor, job, Reporter(), seconds=0.3)
    before = job.overlay.read_bytes()
    with pytest.raises(RuntimeError, match="stop"):
        predict_video(predictor, job, _Fails())
    assert job.overlay.read_bytes() == before
    assert len(list(job.masks.iterdir())) == 3
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {"walk.mp4", "walk_masks"}
    predict_video(predictor, job, Reporter())
    assert len(list(job.masks.iterdir())) == FRAMES


class _Camera:
    """What OpenCV gives of a camera, without end."""

    def __init__(self, source):
        assert source == 0
        self.frame = np.full((36, 52, 3), 120, np.uint8)

    def isOpened(self):  # noqa: N802
        return True

    def get(self, name):
        return {cv2.CAP_PROP_FPS: 0.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[name]

    def read(self):
        return True, self.frame

    def release(self):
        pass


def test_a_camera_ends_after_its_seconds(predictor, tmp_path, monkeypatch):
    job = plan_camera(0, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "VideoCapture", _Camera)
        report = predict_video(predictor, job, Reporter(), seconds=0.5)
    assert report.frames >= 1
    assert len(list(job.masks.iterdir())) == report.frames == len(frames_of(job.overlay))
    # The newest frame is taken, so none waits for long.
    assert report.milliseconds["end to end"][0] < 1000


def test_a_short_recording_has_one_frame_and_an_interrupted_one_is_an_error(
    predictor, tmp_path, monkeypatch
):
    class Interrupted(Reporter):
        def track(self, items, description, total=None):
            raise KeyboardInterrupt

    job = plan_camera(0, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(cv2, "VideoCapture", _Camera)
        with pytest.raises(DeepLabError, match="stopped before its first frame"):
            predict_video(predictor, job, Interrupted())
        assert not list(tmp_path.iterdir())
        assert predict_video(predictor, job, Reporter(), seconds=1e-9).frames == 1


def test_an_error_of_the_producing_thread_is_reraised():
    def broken():
        yield 1
        raise ValueError("made badly")

    produced = []
    with produced_ahead(broken(), 4) as ahead, pytest.raises(ValueError, match="made badly"):
        produced.extend(ahead)
    assert produced == [1]


def test_the_producing_thread_waits_for_its_consumer_and_ends_with_it():
    made = []

    def counted():
        for number in itertools.count():
            made.append(number)
            yield number

    with produced_ahead(counted(), 2) as ahead:
        assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(made) <= 5 + 2 + 1


@pytest.mark.parametrize("number", [1, FRAMES - 1])
def test_an_error_while_a_frame_is_drawn_is_reraised(predictor, tmp_path, monkeypatch, number):
    (job,) = plan_videos([write_video(tmp_path / "walk.mp4")], tmp_path / "out")
    written = itertools.count()

    def picture_of(class_map, palette):
        if next(written) == number:
            raise OSError("no space left")
        return class_map_picture(class_map, palette)

    monkeypatch.setattr(video_files, "class_map_picture", picture_of)
    with pytest.raises(OSError, match="no space left"):
        predict_video(predictor, job, Reporter())
    assert not list((tmp_path / "out").iterdir())
