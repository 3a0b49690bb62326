import dataclasses
import functools

import numpy as np
import pytest
from PIL import Image
from stand_ins import write_workdir

from deeplab_jax.checkpointing import read_description, write_description
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.inference import load

# Of the images of more than 8 bits that the model was trained on.
INTENSITY_RANGE = (0.0, 4095.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("model") / "run"
    write_workdir(workdir, ["sky", "tree", "road"])
    trained = dataclasses.replace(read_description(workdir), intensity_range=INTENSITY_RANGE)
    write_description(workdir, trained)
    return workdir


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in {"a.jpg": (40, 50), "sub/b.png": (65, 33)}.items():
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def loaded_once():
    """`load` that keeps what it has loaded, so that the network is compiled once."""
    return functools.cache(load)


@pytest.fixture
def predict(model, loaded_once, tmp_path, capsys, monkeypatch):
    """Runs the command; returns its exit status and what it wrote to stderr."""
    monkeypatch.setattr("deeplab_jax.inference.load", loaded_once)

    def predict(*arguments):
        output = f"--output={tmp_path / 'out'}"
        status = run(["predict", f"--model={model}", output, *map(str, arguments)], Console())
        return status, capsys.readouterr().err

    return predict


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_pictures_of_other_formats_are_left_out_with_a_warning(predict, photos):
    for name in ("c.HEIC", "sub/d.gif", ".hidden.heic", "notes.txt"):
        (photos / name).touch()
    status, printed = predict(photos)
    assert status == 0
    assert "files that end in .gif, .heic are left out (2, the first is" in printed.replace(
        "\n", " "
    )


def test_writes_masks_of_the_inputs_size_overlays_and_probabilities(predict, photos, tmp_path):
    status, _ = predict(photos, "--probabilities")
    assert status == 0
    assert files_below(tmp_path / "out") == {
        f"{stem}{suffix}"
        for stem in ("a", "sub/b")
        for suffix in (".png", "_overlay.png", "_probabilities.npz")
    }
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert (mask.mode, mask.size) == ("P", (50, 40))
        class_map = np.asarray(mask)
    with np.load(tmp_path / "out" / "a_probabilities.npz") as stored:
        assert stored["probabilities"].dtype == np.float16
        assert stored["class_names"].tolist() == ["sky", "tree", "road"]
        own = np.take_along_axis(stored["probabilities"], class_map[..., None], -1)[..., 0]
        np.testing.assert_array_equal(own, stored["probabilities"].max(-1))
    with Image.open(tmp_path / "out" / "sub" / "b_overlay.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (33, 65))


def test_flags_of_inference_are_obeyed(predict, photos, tmp_path):
    status, _ = predict(photos, "--flip", "--tile=49x49", "--overlap=0.1")
    assert status == 0
    with Image.open(tmp_path / "out" / "sub" / "b.png") as mask:
        assert (mask.mode, mask.size) == ("P", (33, 65))


def test_sixteen_bits_are_read_as_in_training(predict, tmp_path):
    levels = np.random.default_rng(0).integers(0, 2000, (40, 50), np.uint16)
    scaled = np.rint(levels * (255 / INTENSITY_RANGE[1])).astype(np.uint8)
    for name, pixels in {"deep": levels, "plain": scaled}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert predict(tmp_path / "deep.png", tmp_path / "plain.png")[0] == 0
    for suffix in (".png", "_overlay.png"):
        deep, plain = (
            np.asarray(Image.open(tmp_path / "out" / f"{name}{suffix}"))
            for name in ("deep", "plain")
        )
        np.testing.assert_array_equal(deep, plain)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--submission=voc"], "the voc server requires the 21 classes"),
        (["--submission=cityscapes"], "this is not the name of a Cityscapes frame"),
        (["--submission=vok"], "submission"),
        (["--submission=voc", "--probabilities"], "omit --probabilities"),
        (["--submission=voc", "walk.mp4"], "walk.mp4 is a video, but --submission=voc writes"),
        (["--submission=voc", "--camera=0"], "--camera=0 is a video, but --submission=voc"),
        (["--scales=1,1"], "contain one scale twice"),
        (["--output_stride=9"], "must be one of 4, 8, 16, 32"),
        (["--frame_size=abc"], "size 'abc' is not legal; give height x width"),
        (["--seconds=inf"], "--seconds=inf is not legal; give a finite number above 0"),
        (["--seconds=nan"], "--seconds=nan is not legal"),
        (["--seconds=2"], "--seconds applies to videos and cameras only"),
        (["--frame_size=full"], "--frame_size applies to videos and cameras only"),
        (["--submission=voc", "--overlay_bands=1"], "omit --overlay_bands"),
    ],
)
def test_impossible_requests_give_one_line_and_write_nothing(
    predict, photos, tmp_path, flags, complaint
):
    status, error = predict(photos, *flags)
    assert (status, error.count("\n")) == (2, 1)
    assert complaint in error
    assert not (tmp_path / "out").exists()


def test_a_folder_with_the_name_of_a_video_is_predicted(predict, photos, tmp_path):
    status, error = predict(photos.rename(tmp_path / "clip.mp4"))
    assert status == 0, error
    assert {"a.png", "sub/b.png"} <= files_below(tmp_path / "out")


@pytest.mark.parametrize("flag", ["--overlay_bands=3,2,1", "--page=2"])
@pytest.mark.parametrize("source", ["walk.mp4", "--camera=0"])
def test_flags_of_images_are_refused_for_videos(predict, tmp_path, flag, source):
    (tmp_path / "walk.mp4").touch()
    status, error = predict(source if source.startswith("--") else tmp_path / source, flag)
    assert (status, error.count("\n")) == (2, 1)
    assert f"{flag.partition('=')[0]} applies to images only" in error
    assert not (tmp_path / "out").exists()


def test_frames_are_not_downsampled_if_they_are_predicted_in_tiles(predict, tmp_path, monkeypatch):
    limits = []

    def predict_video(predictor, job, reporter, limit, seconds):
        limits.append(limit)

    monkeypatch.setattr("deeplab_jax.inference.predict_video", predict_video)
    (tmp_path / "walk.mp4").touch()
    for flags in ([], ["--tile=49x49"], ["--tile=49x49", "--frame_size=33x33"]):
        status, error = predict(tmp_path / "walk.mp4", *flags)
        assert status == 0, error
    assert limits[1:] == [None, (33, 33)]


def test_bands_of_overlays_are_refused_for_images_beside_a_video(predict, photos, tmp_path):
    (photos / "walk.mp4").touch()
    status, error = predict(photos, "--overlay_bands=3,2,1")
    assert (status, error.count("\n")) == (2, 1)
    assert "walk.mp4 is a video" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", ["walk.mp4", "photos"])
def test_a_folder_of_volumes_beside_other_inputs_is_refused(predict, photos, tmp_path, other):
    volume = tmp_path / "scans" / "a.nii.gz"
    volume.parent.mkdir()
    volume.write_bytes(b"")
    (tmp_path / "walk.mp4").touch()
    status, error = predict(tmp_path / other, volume.parent)
    assert (status, error.count("\n")) == (2, 1)
    assert f"{volume}: a NIfTI file contains the measurements of a scanner" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_masks_of_a_video_do_not_replace_predictions_of_images(predict, photos, tmp_path, flags):
    (photos / "sub.avi").touch()
    (photos / "sub").rename(photos / "sub_masks")
    status, error = predict(photos, *flags)
    assert (status, error.count("\n")) == (2, 1)
    assert "out/sub_masks/b.png would be inside" in error
    assert not (tmp_path / "out").exists()


def test_existing_outputs_are_kept_without_overwrite(predict, photos, tmp_path):
    target = tmp_path / "out" / "a.png"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    status, complaint = predict(photos)
    assert (status, complaint.count("\n")) == (2, 1)
    assert f"{target} exists" in complaint
    assert target.read_bytes() == b"mine"
    assert files_below(tmp_path / "out") == {"a.png"}
    assert predict(photos, "--overwrite")[0] == 0
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["empty", "text", "truncated"])
def test_a_bad_image_stops_before_anything_is_written(predict, photos, tmp_path, content):
    whole = (photos / "a.jpg").read_bytes()
    bad = {"empty": b"", "text": b"no image", "truncated": whole[: len(whole) // 2]}[content]
    (photos / "z.jpg").write_bytes(bad)
    status, complaint = predict(photos)
    assert (status, complaint.count("\n")) == (2, 1)
    assert str(photos / "z.jpg") in complaint
    assert not (tmp_path / "out").exists()
    status, complaint = predict(photos, "--skip_bad")
    assert status == 0
    assert f"skipped: {photos / 'z.jpg'}" in complaint
    assert "skipped 1 of 3 images" in complaint
    assert len(files_below(tmp_path / "out")) == 4


def test_when_all_images_are_bad_that_is_an_error(predict, tmp_path):
    (tmp_path / "z.jpg").write_bytes(b"")
    status, complaint = predict(tmp_path / "z.jpg", "--skip_bad")
    assert status == 2
    assert "none of the 1 images can be read" in complaint


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["predict"], "--model, --output must be given"),
        (["predict", "--model=nowhere", "--output=out"], "no image to predict"),
        (["predict", "--model=nowhere", "--output=out", "PHOTOS"], "nowhere"),
        (["predict", "--modle=x"], "modle"),
    ],
)
def test_mistakes_give_one_line_errors(arguments, complaint, photos, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    assert run(arguments, Console()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error
    assert files_below(tmp_path) == {"photos/a.jpg", "photos/sub/b.png"}


@pytest.mark.parametrize("checkpoint", ["7", "newest"])
def test_an_unknown_checkpoint_error_lists_the_available_ones(
    predict, photos, checkpoint, tmp_path
):
    status, complaint = predict(photos, f"--checkpoint={checkpoint}")
    assert status == 2
    assert "best, last, 1" in complaint
    assert not (tmp_path / "out").exists()
