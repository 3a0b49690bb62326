"""Pages of a TIFF, and volumes of a scanner: chosen, converted, or refused by name."""

import gzip
import importlib.util
import pathlib
import runpy
import subprocess
import sys

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
from pydicom.dataset import FileDataset, FileMetaDataset
from stand_ins import write_workdir

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.data import open_dataset
from deeplab_jax.data.images import read_image, storable_image
from deeplab_jax.data.masks import open_mask
from deeplab_jax.data.shapes import draw_scene
from deeplab_jax.data.volumes import volume_format
from deeplab_jax.errors import DeepLabError

RECIPE = pathlib.Path(__file__).parents[2] / "examples" / "medical_volumes.py"
CLASSES = "background\ndisc\nsquare\ntriangle\nring\ncross\n"
NUM_PAGES = 3


def scenes(index: int, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pages of an image, [NUM_PAGES, H, W, 3], and their masks."""
    drawn = [draw_scene(0, page, index, size=40) for page in range(NUM_PAGES)]
    images, masks = (np.stack(parts) for parts in zip(*drawn, strict=True))
    return images.astype(dtype) * (1 if dtype == np.uint8 else 16), masks


@pytest.fixture
def source(tmp_path):
    """A folder data set whose images have three pages; every second mask has one."""
    folder = tmp_path / "mine"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(6):
        images, masks = scenes(index, np.uint16 if index == 5 else np.uint8)
        tifffile.imwrite(folder / "images" / f"{index}.tif", images, photometric="rgb")
        pages = masks if index % 2 else masks[1]
        tifffile.imwrite(folder / "masks" / f"{index}.tif", pages, photometric="minisblack")
    (folder / "classes.txt").write_text(CLASSES)
    return folder


@pytest.fixture
def prepare(tmp_path, capsys):
    """Runs the command on a source; returns its exit status and what it wrote to stderr."""

    def prepare(source: pathlib.Path, *flags: str) -> tuple[int, str]:
        places = [f"--source={source}", f"--data_dir={tmp_path / 'data'}", "--name=mine"]
        status = run(["prepare", "folder", *places, *flags], Console())
        return status, capsys.readouterr().err

    return prepare


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("model") / "run", ["sky", "tree", "road"])


@pytest.fixture
def predict(model, tmp_path, capsys):
    def predict(*arguments: object) -> tuple[int, str]:
        output = f"--output={tmp_path / 'out'}"
        status = run(["predict", f"--model={model}", output, *map(str, arguments)], Console())
        return status, capsys.readouterr().err

    return predict


@pytest.mark.parametrize("page", range(1, NUM_PAGES + 1))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_page_is_read_by_its_number(tmp_path, page, dtype, options):
    images, masks = scenes(0, dtype)
    path, mask = tmp_path / "x.tif", tmp_path / "mask.tif"
    tifffile.imwrite(path, images, photometric="rgb", compression="zlib", **options)
    tifffile.imwrite(mask, masks, photometric="minisblack", **options)
    single = tmp_path / "single.tif"
    tifffile.imwrite(single, images[page - 1], photometric="rgb")
    np.testing.assert_array_equal(read_image(path, page=page), read_image(single))
    assert storable_image(path, page=page).digest == storable_image(single).digest
    np.testing.assert_array_equal(open_mask(mask, page).values(), masks[page - 1])


def test_prepare_takes_the_chosen_page_of_images_and_masks(source, prepare, tmp_path):
    assert prepare(source, "--page=2", "--intensity_range=0,4080")[0] == 0
    found = {}
    for split in ("train", "val"):
        dataset = open_dataset("folder/mine", tmp_path / "data", split)
        examples = (dataset[index] for index in range(len(dataset)))
        found |= {example["image_id"]: example for example in examples}
    assert sorted(found) == [str(index) for index in range(6)]
    for index in range(6):
        images, masks = scenes(index)
        np.testing.assert_array_equal(found[str(index)]["image"], images[1])
        np.testing.assert_array_equal(found[str(index)]["label"], masks[1])


def test_predict_takes_the_chosen_page(source, predict, tmp_path):
    images, _ = scenes(0)
    PIL.Image.fromarray(images[2]).save(tmp_path / "2.png")
    assert predict(source / "images" / "0.tif", tmp_path / "2.png", "--page=3")[0] == 2
    assert predict(tmp_path / "2.png")[0] == 0
    for flags in ([], ["--tile=49x49", "--overwrite"]):
        assert predict(source / "images" / "0.tif", "--page=3", *flags) == (0, "")
        if not flags:
            np.testing.assert_array_equal(
                *(np.asarray(PIL.Image.open(tmp_path / "out" / f"{stem}.png")) for stem in "02")
            )


def write_nifti(path: pathlib.Path, values: np.ndarray, affine: np.ndarray) -> pathlib.Path:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def write_series(folder: pathlib.Path, values: np.ndarray, spacing: float = 2.0) -> pathlib.Path:
    """Writes stored values [slices, rows, columns] as a CT series with names out of order."""
    folder.mkdir()
    series = pydicom.uid.generate_uid()
    for index, pixels in enumerate(values):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        path = folder / f"IM{(7 * index) % len(values):03}"
        item = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
        item.SOPClassUID = meta.MediaStorageSOPClassUID
        item.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        item.SeriesInstanceUID = series
        item.Modality = "CT"
        # From right to left along a row, from front to back along a column.
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.ImagePositionPatient = [-30.0, -20.0, 100.0 + spacing * index]
        item.PixelSpacing = [1.5, 1.25]
        item.RescaleSlope, item.RescaleIntercept = 1, -1024
        item.Rows, item.Columns = pixels.shape
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit, item.PixelRepresentation = 15, 0
        item.PixelData = pixels.astype("<u2").tobytes()
        item.save_as(path, enforce_file_format=True)
    return folder


# Of the series that `write_series` writes, along (x, y, z) of NIfTI.
AFFINE = np.array([[-1.25, 0, 0, 30.0], [0, -1.5, 0, 20.0], [0, 0, 2.0, 100.0], [0, 0, 0, 1.0]])


def scan(seed: int, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Returns Hounsfield units and classes, [slices, rows, columns] as a radiologist views them."""
    random = np.random.default_rng(seed)
    classes = np.zeros((count, 24, 32), np.uint8)
    # The liver is on the patient's right side, left in the picture.
    classes[:, 8:20, 4:14] = 1
    values = random.normal(-50, 20, classes.shape) + 110 * classes
    return np.rint(values).astype(np.int16), classes


@pytest.fixture
def convert():
    spec = importlib.util.spec_from_file_location("medical_volumes", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def convert(
        output: pathlib.Path, *volumes: str, val: str = "b", classes: str = "background,liver"
    ) -> None:
        options = [f"--output={output}", f"--classes={classes}", "--window=-160,240"]
        module.main([*options, f"--val={val}", *volumes])

    return convert


@pytest.fixture
def volumes(tmp_path):
    """Patient a as a DICOM series, b as NIfTI of another orientation; labels as NIfTI."""
    given = {}
    for name, seed in {"a": 0, "b": 1}.items():
        values, classes = scan(seed)
        if name == "a":
            images = write_series(tmp_path / "series", values + 1024)
            labels = write_nifti(tmp_path / "a_labels.nii.gz", classes.transpose(2, 1, 0), AFFINE)
        else:
            # Axes of the file: superior, left, anterior.
            turned = np.array([[0, -1, 0, 9], [0, 0, 1, 8], [2, 0, 0, 7], [0, 0, 0, 1]], float)
            images, labels = (
                write_nifti(tmp_path / f"b_{kind}.nii", array[:, ::-1].transpose(0, 2, 1), turned)
                for kind, array in {"images": values, "labels": classes}.items()
            )
        given[name] = f"{name}={images}:{labels}"
    return given


def test_the_recipe_turns_volumes_into_slices_as_they_are_viewed(convert, volumes, tmp_path):
    output = tmp_path / "liver"
    convert(output, *volumes.values())
    for split, patient, seed in (("train", "a/scan0", 0), ("val", "b/scan1", 1)):
        values, classes = scan(seed)
        expected = np.rint((np.clip(values, -160, 240) + 160.0) * (255 / 400)).astype(np.uint8)
        for index in range(len(values)):
            place = pathlib.Path(split, patient, f"{index:04}.png")
            picture, mask = (
                np.asarray(PIL.Image.open(output / kind / place)) for kind in ("images", "masks")
            )
            np.testing.assert_array_equal(picture, expected[index])
            np.testing.assert_array_equal(mask, classes[index])


def test_slices_of_a_patient_stand_in_one_split(convert, volumes, prepare, tmp_path):
    again = volumes["a"].replace("a=", "b=")
    convert(tmp_path / "liver", *volumes.values(), again)
    folders = {
        path.relative_to(tmp_path / "liver" / "images").parts[:2]
        for path in (tmp_path / "liver" / "images").rglob("*.png")
    }
    assert folders == {("train", "a"), ("val", "b")}
    status, _ = prepare(tmp_path / "liver", f"--classes={tmp_path / 'liver' / 'classes.txt'}")
    assert status == 0
    train = open_dataset("folder/mine", tmp_path / "data", "train")
    patients = {train[index]["image_id"].split("/")[0] for index in range(len(train))}
    assert patients == {"a"}


def test_scans_without_labels_become_images(convert, volumes, tmp_path):
    convert(tmp_path / "liver", *volumes.values())
    scans = [given.rpartition(":")[0] for given in volumes.values()]
    convert(tmp_path / "new", *scans, val="", classes="")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["images"]
    for split, place in (("train", "a/scan0"), ("val", "b/scan1")):
        with_labels = sorted((tmp_path / "liver/images" / split / place).iterdir())
        without = sorted((tmp_path / "new/images" / place).iterdir())
        assert [path.name for path in without] == [path.name for path in with_labels]
        for found, expected in zip(without, with_labels, strict=True):
            assert found.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize(
    ("kinds", "names", "complaint"),
    [
        ("scan labeled", {}, "give labels for all volumes, or for none"),
        ("scan scan", {}, "--classes and --val are required for volumes with labels, and only"),
        ("labeled labeled", {"val": ""}, "--classes and --val are required for volumes with"),
        ("labeled labeled", {"classes": ",".join(map(str, range(256)))}, "at most 255 classes"),
    ],
)
def test_labels_classes_and_patients_are_given_together(
    kinds, names, complaint, convert, volumes, tmp_path, capsys
):
    given = [
        volumes[patient] if kind == "labeled" else volumes[patient].rpartition(":")[0]
        for patient, kind in zip("ab", kinds.split(), strict=True)
    ]
    with pytest.raises(SystemExit):
        convert(tmp_path / "liver", *given, **names)
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "liver").exists()


@pytest.mark.parametrize("window", ["-160", "-160,240,9", "low,high"])
def test_a_window_is_two_numbers(convert, window, tmp_path, capsys):
    with pytest.raises(SystemExit):
        convert(tmp_path / "new", f"--window={window}", "a=scan.nii", val="", classes="")
    assert "give two numbers, as in --window=-160,240" in capsys.readouterr().err


def test_a_missing_volume_ends_in_one_line(monkeypatch, tmp_path):
    words = [f"--output={tmp_path / 'new'}", "--window=0,1", f"a={tmp_path / 'no.nii.gz'}"]
    monkeypatch.setattr(sys, "argv", ["medical_volumes.py", *words])
    with pytest.raises(SystemExit, match=r"^medical_volumes\.py: .*no\.nii\.gz"):
        runpy.run_path(str(RECIPE), run_name="__main__")
    assert not (tmp_path / "new").exists()


def test_a_truncated_volume_is_named(convert, tmp_path):
    values, classes = scan(0)
    images = write_nifti(tmp_path / "scan.nii.gz", values.transpose(2, 1, 0), AFFINE)
    labels = write_nifti(tmp_path / "labels.nii.gz", classes.transpose(2, 1, 0), AFFINE)
    content = pathlib.Path(images).read_bytes()
    pathlib.Path(images).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"scan\.nii\.gz or its labels: damaged compressed file"):
        convert(tmp_path / "liver", f"a={images}:{labels}", f"b={images}:{labels}")
    assert not (tmp_path / "liver").exists()


@pytest.mark.parametrize("fault", ["grid", "gap", "class", "two series", "one slice"])
def test_the_recipe_refuses_what_would_give_wrong_slices(convert, volumes, tmp_path, fault):
    output, series = tmp_path / "liver", tmp_path / "series"
    values, classes = scan(0)
    if fault == "grid":
        write_nifti(tmp_path / "a_labels.nii.gz", classes.transpose(2, 1, 0), np.eye(4))
    elif fault == "class":
        write_nifti(tmp_path / "a_labels.nii.gz", classes.transpose(2, 1, 0) * 7, AFFINE)
    elif fault == "gap":
        # The third of the five slices.
        (series / "IM004").unlink()
    elif fault == "two series":
        write_series(tmp_path / "other", values + 1024)
        (tmp_path / "other" / "IM001").rename(series / "XX001")
    else:
        for path in sorted(series.iterdir())[1:]:
            path.unlink()
    with pytest.raises(ValueError, match=r"a_labels|series"):
        convert(output, *volumes.values())
    assert not output.exists()
    assert not list(tmp_path.glob(".writing-*"))


@pytest.mark.parametrize("content", [None, b"no volume"])
def test_a_volume_that_cannot_be_read_ends_the_recipe_in_one_line(tmp_path, content):
    volume = tmp_path / "scan.nii"
    if content is not None:
        volume.write_bytes(content)
    flags = [f"--output={tmp_path / 'liver'}", "--classes=background,liver", "--window=0,1"]
    volumes = [f"{patient}={volume}:{volume}" for patient in "ab"]
    done = subprocess.run(
        [sys.executable, str(RECIPE), *flags, "--val=b", *volumes], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "medical_volumes.py: " in done.stderr
    assert "scan.nii" in done.stderr
    assert "Traceback" not in done.stderr


def test_volumes_are_recognized_by_content_and_suffix(tmp_path):
    values, _ = scan(0)
    (tmp_path / "s").mkdir()
    series = write_series(tmp_path / "s" / "series", values + 1024)
    dicom = (series / "IM000").read_bytes()
    plain = write_nifti(tmp_path / "x.nii", values, np.eye(4)).read_bytes()
    second = tmp_path / "second.nii"
    nibabel.save(nibabel.Nifti2Image(values, np.eye(4)), second)
    for content, name, expected in (
        (dicom, "IM000", "DICOM"),
        (dicom, "x.png", "DICOM"),
        (b"", "x.DCM", "DICOM"),
        (plain, "x", "NIfTI"),
        (gzip.compress(plain), "x.gz", "NIfTI"),
        (second.read_bytes(), "x.png", "NIfTI"),
        (b"\x1f\x8b damaged", "x.nii.gz", "NIfTI"),
        (gzip.compress(b"text"), "x.gz", None),
        (b"\x89PNG", "x.png", None),
    ):
        assert volume_format(content[:2000], name) == expected, name


GIVEN = ["file", "directory", "below images", "masks", "named like an image"]


@pytest.mark.parametrize("kind", ["DICOM", "NIfTI"])
@pytest.mark.parametrize("given", GIVEN)
def test_volumes_are_refused_by_name(kind, given, source, prepare, predict, tmp_path):
    values, _ = scan(0)
    series = write_series(tmp_path / "series", values + 1024)
    volume = series / "IM001"
    if kind == "NIfTI":
        folder = tmp_path / "volumes"
        folder.mkdir()
        volume = write_nifti(folder / "scan.nii.gz", values, np.eye(4))
    predicted = prepared = volume if given == "file" else volume.parent
    if given in ("below images", "masks"):
        place = source / ("images" if given == "below images" else "masks")
        for path in place.iterdir():
            path.unlink()
        volume.rename(place / volume.name)
        predicted, prepared = place, source
    elif given == "named like an image":
        images = source / "images"
        volume.rename(images / "0.tif")
        predicted, prepared = images / "0.tif", source
    for status, error in (predict(predicted), prepare(prepared, "--page=1")):
        last = error.splitlines()[-1]
        assert status == 2
        assert f"a {kind} file" in last
        assert "examples/medical_volumes.py" in last
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "data" / "folder").exists()


SPOILT = {
    "no page": ([], "contains 3 pictures (pages); choose one with --page=N, from 1 to 3"),
    "out of range": (["--page=4"], "there is no page 4; the file contains 3 pages"),
    "page 0": (["--page=0"], "page"),
    "no number": (["--page=last"], "page"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_wrong_page_ends_in_one_line(fault, source, prepare, predict, tmp_path):
    flags, complaint = SPOILT[fault]
    status, error = predict(source / "images" / "0.tif", *flags)
    assert (status, error.count("\n")) == (2, 1)
    assert complaint in error
    status, error = prepare(source, *flags)
    assert status == 2
    assert complaint in error.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "data" / "folder").exists()


def test_the_python_functions_refuse_alike(source):
    path = source / "images" / "0.tif"
    for read in (read_image, storable_image):
        with pytest.raises(DeepLabError, match="choose one with --page=N, from 1 to 3"):
            read(path)
        with pytest.raises(DeepLabError, match="there is no page 0; the file contains 3 pages"):
            read(path, page=0)
    with pytest.raises(DeepLabError, match=r"choose one with --page=N"):
        open_mask(source / "masks" / "1.tif")
