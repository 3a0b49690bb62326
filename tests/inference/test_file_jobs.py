import pathlib

import numpy as np
import pytest
from PIL import Image
from stand_ins import RedReader, WatchedPredictor, noise

from deeplab_jax.data.descriptors import bit_interleaved_palette
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import plan_files, predict_files
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import overlay


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ["a.jpg", "sub/b.PNG", "sub/c.v2.webp", "sub/notes.txt"]:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    return pathlib.Path("photos")


def test_paths_below_a_folder_are_kept(photos):
    jobs = plan_files([photos, photos / "sub" / "notes.txt"], "out", probabilities=True)
    assert [str(job.class_map) for job in jobs] == [
        "out/a.png",
        "out/sub/b.png",
        "out/sub/c.v2.png",
        "out/notes.png",
    ]
    assert str(jobs[2].overlay) == "out/sub/c.v2_overlay.png"
    assert str(jobs[2].probabilities) == "out/sub/c.v2_probabilities.npz"
    assert not pathlib.Path("out").exists()


def test_predictions_of_an_earlier_run_are_not_taken_for_images(photos):
    (photos / "out").mkdir()
    (photos / "out" / "x.png").write_bytes(b"")
    assert len(plan_files([photos], photos / "out")) == 3
    assert len(plan_files([photos / "out"], "elsewhere")) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_never_a_target(photos, overwrite, link):
    output = photos
    if link:
        output = pathlib.Path("link")
        output.symlink_to(photos)
    (photos / "a.png").write_bytes(b"")
    with pytest.raises(DeepLabError, match="is an input"):
        plan_files([photos / "a.jpg", photos / "a.png"], output, overwrite=overwrite)


def test_a_target_that_exists_or_is_claimed_twice_needs_overwrite(photos):
    (photos / "a.png").write_bytes(b"")
    pair = [photos / "a.jpg", photos / "a.png"]
    with pytest.raises(
        DeepLabError, match=r"a\.jpg and photos/a\.png would both be written to out/a\.png"
    ):
        plan_files(pair, "out")
    assert len(plan_files(pair, "out", overwrite=True)) == 2
    pathlib.Path("out").mkdir()
    pathlib.Path("out/a_overlay.png").write_bytes(b"")
    with pytest.raises(DeepLabError, match=r"out/a_overlay\.png exists"):
        plan_files([photos / "a.jpg"], "out")


def test_an_overlay_can_be_claimed_by_another_image(photos):
    (photos / "a_overlay.jpg").write_bytes(b"")
    with pytest.raises(DeepLabError, match="would both be written to"):
        plan_files([photos], "out")


@pytest.mark.parametrize(
    ("paths", "output", "reason"),
    [
        (["missing.jpg"], "out", "missing.jpg: no such file"),
        ([], "out", "no image to predict"),
        (["empty"], "out", r"no image to predict was found in empty; .*\.jpg, \.npy, \.png"),
        (["photos"], "photos/a.jpg", "is a file"),
    ],
)
def test_mistakes_are_named(photos, paths, output, reason):
    pathlib.Path("empty").mkdir()
    with pytest.raises(DeepLabError, match=reason):
        plan_files(paths, output)


def test_a_file_that_is_given_twice_is_predicted_once(photos):
    paths = [photos / "a.jpg", photos, photos / "a.jpg", photos.absolute() / "a.jpg"]
    jobs = plan_files(paths, "out")
    assert [job.class_map.name for job in jobs] == ["a.png", "b.png", "c.v2.png"]


def test_outputs_may_be_in_the_home_directory(photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.absolute()))
    (job,) = plan_files([photos / "a.jpg"], "~/out")
    assert job.class_map == photos.absolute() / "out/a.png"


def test_the_probabilities_of_one_image_at_a_time_are_in_memory(tmp_path, monkeypatch):
    def draw(image, class_map, palette):
        assert predictor.last() is None
        assert class_map.dtype == np.uint8
        return overlay(image, class_map, palette)

    monkeypatch.setattr("deeplab_jax.inference.files.overlay", draw)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(20, 30)).save(tmp_path / name)
    predictor = WatchedPredictor(RedReader(), {}, "abcd", bit_interleaved_palette(4))
    jobs = plan_files([tmp_path], tmp_path / "out", probabilities=True)
    predict_files(predictor, jobs, Reporter())
    assert all(target.exists() for job in jobs for target in job.targets)
