import numpy as np
import PIL.Image
import pytest
from memory_bucket import use_memory_bucket
from stand_ins import RedReader

from deeplab_jax.data.descriptors import CITYSCAPES, VOC
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path
from deeplab_jax.inference import (
    Predictor,
    check_submission,
    plan_submission,
    write_submission,
)
from deeplab_jax.models import Architecture
from deeplab_jax.reporter import Reporter

# Of cityscapesScripts: road is 7, sidewalk 8, building 11, wall 12.
FIRST_LABEL_IDS = [7, 8, 11, 12]


def make_predictor(descriptor):
    model = RedReader(Architecture("mobilenet_v2", num_classes=descriptor.num_classes))
    return Predictor(model, {}, descriptor.class_names, descriptor.palette, source="net")


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    PIL.Image.fromarray(image).save(path)
    return image[..., 0] % 4


@pytest.mark.parametrize(
    ("server", "descriptor", "name", "target", "mode"),
    [
        (
            "voc",
            VOC,
            "2008_000006.png",
            "results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png",
            "P",
        ),
        (
            "cityscapes",
            CITYSCAPES,
            "berlin/berlin_000000_000019_leftImg8bit.png",
            "berlin_000000_000019_labelIds.png",
            "L",
        ),
    ],
)
def test_files_are_as_the_server_wants(tmp_path, server, descriptor, name, target, mode):
    expected = write_image(tmp_path / "images" / name)
    predictor = make_predictor(descriptor)
    check_submission(predictor, server)
    jobs = plan_submission([tmp_path / "images"], tmp_path / "out", server)
    write_submission(predictor, jobs, server, Reporter())
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == [tmp_path / "out" / target]
    with PIL.Image.open(files[0]) as picture:
        assert (picture.mode, picture.size) == (mode, (30, 20))
        values = np.asarray(picture)
        if mode == "P":
            assert picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    if server == "cityscapes":
        expected = np.array(FIRST_LABEL_IDS)[expected]
    np.testing.assert_array_equal(values, expected)


def test_mistakes_are_named(tmp_path):
    write_image(tmp_path / "images" / "street.png")
    with pytest.raises(DeepLabError, match=r"street.png: this is not the name .* berlin_"):
        plan_submission([tmp_path / "images"], tmp_path / "out", "cityscapes")
    (job,) = plan_submission([tmp_path / "images"], tmp_path / "out", "voc")
    job.class_map.parent.mkdir(parents=True)
    job.class_map.touch()
    with pytest.raises(DeepLabError, match="exists; give another"):
        plan_submission([tmp_path / "images"], tmp_path / "out", "voc")
    with pytest.raises(DeepLabError, match="the voc server requires the 21"):
        check_submission(make_predictor(CITYSCAPES), "voc")


def test_a_submission_may_be_in_a_bucket(tmp_path, monkeypatch):
    use_memory_bucket(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "images" / "a.png")
    jobs = plan_submission([tmp_path / "images"], "s3://bucket/out", "voc")
    write_submission(make_predictor(VOC), jobs, "voc", Reporter())
    target = "s3://bucket/out/results/VOC2012/Segmentation/comp6_test_cls/a.png"
    assert as_path(target).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
