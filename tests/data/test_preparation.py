import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import numpy as np
import PIL.Image
import pytest

from deeplab_jax.data import open_dataset, prepared_names
from deeplab_jax.data.builders.camvid import Camvid
from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.builders.shapes import Shapes
from deeplab_jax.data.preparation import Preparation, class_doubts, prepare, render, summary
from deeplab_jax.data.statistics import SplitStatistics
from deeplab_jax.errors import DeepLabError

IMAGE = np.zeros((4, 6, 3), np.uint8)
LABEL = np.ones((4, 6), np.uint8)


@pytest.fixture
def source(tmp_path, save):
    for split, stems in {"train": "abcd", "val": "e"}.items():
        for stem in stems:
            save(f"raw/{split}/{stem}.png", IMAGE)
            save(f"raw/{split}annot/{stem}.png", LABEL)
    return tmp_path / "raw"


@pytest.fixture
def make(tmp_path, source, reporter):
    return functools.partial(
        Camvid, source=source, data_dir=tmp_path / "prepared", reporter=reporter
    )


def files_below(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def damage(source, save):
    save("raw/train/b.png", IMAGE[:2])
    save("raw/trainannot/c.png", LABEL * 17)
    encoded = (source / "train/d.png").read_bytes()
    (source / "train/d.png").write_bytes(encoded[:-20])


def test_every_bad_file_is_listed_and_nothing_is_written(source, save, make, reporter, tmp_path):
    damage(source, save)
    with pytest.raises(DeepLabError, match=r"trainannot/b\.png.*and 2 more.*--skip_bad"):
        prepare(make, reporter=reporter)
    sizes, value, truncated = reporter.warnings
    assert "mask is 4x6 (height x width), but its image b.png is 2x6" in sizes
    assert "mask value 17 (24 pixels); legal: classes 0..10, void 11" in value
    assert "train/d.png: truncated" in truncated
    assert not files_below(tmp_path / "prepared")


@pytest.mark.parametrize(("values", "shown"), [((17, 17), "17"), ((17, 113), "…")])
def test_only_a_mask_value_that_all_bad_files_have_is_counted(save, make, reporter, values, shown):
    for name, value in zip("bc", values, strict=True):
        save(f"raw/trainannot/{name}.png", np.full_like(LABEL, value))
    with pytest.raises(DeepLabError, match=f"listed above: 2 x illegal mask value {shown}: b, c"):
        prepare(make, reporter=reporter)


def test_bad_files_can_be_left_out(source, save, make, reporter, tmp_path):
    damage(source, save)
    preparation = prepare(make, skip_bad=True, reporter=reporter)
    assert preparation.statistics["train"].num_images == 1
    assert list(preparation.left_out) == reporter.warnings
    assert len(open_dataset("camvid", tmp_path / "prepared", "train")) == 1
    report = render(preparation)
    assert "left out (3):" in report
    assert "mask value 17 (24 pixels)" in report


def test_a_split_without_any_good_example_is_refused(save, make, reporter, tmp_path):
    save("raw/valannot/e.png", LABEL * 17)
    with pytest.raises(DeepLabError, match="no usable example in split 'val'"):
        prepare(make, skip_bad=True, reporter=reporter)
    assert not files_below(tmp_path / "prepared")


def test_an_existing_dataset_is_kept_without_overwrite(source, save, make, reporter, tmp_path):
    first = prepare(make, reporter=reporter)
    save("raw/train/new.png", IMAGE)
    save("raw/trainannot/new.png", LABEL)
    assert prepare(make, reporter=reporter) == first
    assert "already exists" in reporter.messages[-1]
    again = prepare(make, overwrite=True, reporter=reporter)
    assert again.statistics["train"].num_images == 5
    assert [path.name for path in (tmp_path / "prepared/camvid").iterdir()] == ["1.0.0"]


def test_an_existing_dataset_of_other_data_is_reported(source, save, make, reporter, tmp_path):
    prepare(make, reporter=reporter)
    prepare(make, reporter=reporter)
    assert reporter.warnings == []
    save("raw/test/new.png", IMAGE)
    save("raw/testannot/new.png", LABEL)
    prepare(make, reporter=reporter)
    (warning,) = reporter.warnings
    assert "is kept, but it has other splits, 5 images instead of 6; to prepare" in warning


def test_left_out_examples_are_no_difference_of_an_existing_dataset(source, save, make, reporter):
    damage(source, save)
    prepare(make, skip_bad=True, reporter=reporter)
    reporter.warnings.clear()
    prepare(make, skip_bad=True, reporter=reporter)
    assert reporter.warnings == []


def test_other_classes_bands_and_ranges_of_an_existing_dataset_are_reported(
    save, reporter, tmp_path
):
    for name in "ab":
        save(f"own/images/{name}.png", IMAGE)
        save(f"own/masks/{name}.png", LABEL)
    classes = tmp_path / "classes.txt"
    make = functools.partial(
        Folder, source=tmp_path / "own", classes=classes, data_dir=tmp_path / "prepared"
    )
    classes.write_text("floor\ncat\n")
    ranged = functools.partial(make, intensity_range=(0.0, 4095.0))
    prepare(ranged, reporter=reporter)
    prepare(ranged, reporter=reporter)
    assert reporter.warnings == []
    classes.write_text("floor\ndog\n")
    prepare(functools.partial(make, bands=(3, 2, 1)), reporter=reporter)
    (warning,) = reporter.warnings
    assert "it has other classes, other bands, another intensity range; to prepare" in warning


@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_abort_leaves_the_old_and_nothing_half_written(
    make, reporter, tmp_path, failure, monkeypatch
):
    @contextlib.contextmanager
    def failing_loads():
        with monkeypatch.context() as patch:
            patch.setattr(Camvid, "load", Mock(side_effect=failure))
            yield

    prepared = tmp_path / "prepared"
    monkeypatch.setattr(Camvid, "problems", lambda self: [])
    with failing_loads(), pytest.raises(type(failure)):
        prepare(make, reporter=reporter)
    assert not files_below(prepared)
    prepare(make, reporter=reporter)
    before = {path: path.read_bytes() for path in files_below(prepared)}
    with failing_loads(), pytest.raises(type(failure)):
        prepare(make, overwrite=True, reporter=reporter)
    assert {path: path.read_bytes() for path in files_below(prepared)} == before
    assert len(open_dataset("camvid", prepared, "train")) == 4


def test_the_old_dataset_exists_while_the_new_one_is_written(
    save, make, reporter, tmp_path, monkeypatch
):
    directory = prepare(make, reporter=reporter).directory
    save("raw/train/new.png", IMAGE)
    save("raw/trainannot/new.png", LABEL)
    load, numbers = Camvid.load, []

    def watching_load(*arguments):
        numbers.append(Preparation.read(directory).statistics["train"].num_images)
        return load(*arguments)

    monkeypatch.setattr(Camvid, "problems", lambda self: [])
    monkeypatch.setattr(Camvid, "load", watching_load)
    prepare(make, overwrite=True, reporter=reporter)
    assert numbers == [4] * 6
    assert len(open_dataset("camvid", tmp_path / "prepared", "train")) == 5


def test_the_old_dataset_is_kept_if_the_new_one_cannot_be_moved(
    make, reporter, tmp_path, monkeypatch
):
    directory = prepare(make, reporter=reporter).directory
    move = os.replace

    def failing_move(origin, target):
        if target == directory and "replaced" not in str(origin):
            raise KeyboardInterrupt
        move(origin, target)

    monkeypatch.setattr("deeplab_jax.data.preparation.os.replace", failing_move)
    with pytest.raises(KeyboardInterrupt):
        prepare(make, overwrite=True, reporter=reporter)
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]
    assert len(open_dataset("camvid", tmp_path / "prepared", "train")) == 4


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_gives_a_one_line_error(make, reporter, monkeypatch, tmp_path, overwrite):
    if overwrite:
        prepare(make, reporter=reporter)
    full = Mock(side_effect=RuntimeError("write() failed: No space left on device"))
    monkeypatch.setattr(Camvid, "download_and_prepare", full)
    path = re.escape(str(tmp_path / "prepared/camvid/1.0.0"))
    with pytest.raises(DeepLabError, match=rf"^{path} cannot be written .*No space left"):
        prepare(make, overwrite=overwrite, reporter=reporter)


def test_a_killed_preparation_leaves_no_dataset(tmp_path, reporter):
    command = [sys.executable, "-m", "deeplab_jax.cli.main", "prepare", "shapes"]
    process = subprocess.Popen([*command, f"--data_dir={tmp_path}", "--num_train=100000"])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("shapes/*incomplete*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert prepared_names(tmp_path) == []
    prepare(functools.partial(Shapes, data_dir=tmp_path, num_train=2, num_val=1), reporter=reporter)
    assert prepared_names(tmp_path) == ["shapes"]


def test_report(make, reporter):
    report = render(prepare(make, reporter=reporter))
    lines = report.splitlines()
    assert lines[2].split() == ["split", "images", "smallest", "median", "largest", "void"]
    assert lines[3].split() == ["train", "4", "4x6", "4x6", "4x6", "0.0%"]
    (building,) = [line.split() for line in lines if "Building " in line]
    assert building == ["1", "Building", "100.00%", "100.00%", "1.000"]
    assert "absent" in report


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)


def test_equal_images_in_train_and_val_are_found_by_their_pixels(source, save, make, reporter):
    for seed, stem in enumerate("abcd"):
        save(f"raw/train/{stem}.png", noise(seed))
    save("raw/train/twin.png", noise(0))
    save("raw/trainannot/twin.png", LABEL)
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    # Other bytes of the same pixels: another compression, and turned twice.
    save("raw/val/e.png", noise(0), compress_level=1)
    save("raw/val/f.png", np.ascontiguousarray(noise(3)[::-1, ::-1]), exif=exif)
    save("raw/valannot/f.png", LABEL)
    preparation = prepare(make, reporter=reporter)
    (line,) = [note for note in preparation.notes if "equal pixels" in note]
    assert line.startswith("2 images of split train are also in split val")
    assert "a = e, d = f" in line
    assert line in summary(preparation)
    assert line in render(preparation)
    assert Preparation.read(preparation.directory) == preparation


def test_the_summary_of_valid_data_is_one_line(source, save, make, reporter):
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        if path.parent.name.endswith("annot"):
            save(path.relative_to(source.parent), np.arange(24, dtype=np.uint8).reshape(4, 6) % 12)
        else:
            save(path.relative_to(source.parent), noise(number))
    text = summary(prepare(make, reporter=reporter))
    assert text.count("\n") == 0
    assert "4 train, 1 val images" in text


def test_classes_without_a_pixel_and_those_that_fill_a_split_are_named(make, reporter):
    lines = summary(prepare(make, reporter=reporter)).splitlines()
    assert "class 'Building' fills 100 % of the non-void pixels of split train" in lines
    (absent,) = [line for line in lines if line.startswith("classes without a pixel in any split")]
    assert "(10 of 11): 'Sky', 'Pole'" in absent


class CountedName(str):
    """Name that counts how often names are compared."""

    comparisons = 0

    def __eq__(self, other):
        CountedName.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_thousands_of_absent_classes_are_not_compared_with_each_other():
    names = [CountedName(f"class {index}") for index in range(500)]
    pixels = ([1] + [0] * 499, [0, 1] + [0] * 498)
    statistics = {
        split: SplitStatistics(1, ((1, 1),) * 3, tuple(counts), (1,) * 500, 0)
        for split, counts in zip(("train", "val"), pixels, strict=True)
    }
    lines = class_doubts(names, statistics)
    assert any("any split (498 of 500): 'class 2', 'class 3', " in line for line in lines)
    assert any("train (1 of 500): 'class 1'" in line for line in lines)
    assert CountedName.comparisons < 10 * len(names)


def test_void_splits_masks_and_absent_classes_of_one_split_are_named(save, make, reporter):
    save("raw/trainannot/a.png", np.array([[3] * 6] * 4, np.uint8))
    save("raw/valannot/e.png", LABEL * 11)
    text = summary(prepare(make, reporter=reporter))
    assert "every pixel of split val is void" in text
    assert "classes without a pixel in val (2 of 11): 'Building', 'Road'" in text
    assert "1 x every pixel of the mask is void: val/e" in text


def test_examples_that_were_skipped_are_part_of_the_summary(source, save, make, reporter):
    damage(source, save)
    text = summary(prepare(make, skip_bad=True, reporter=reporter))
    assert "3 damaged examples left out" in text
    assert "b.png" in text


def test_two_images_of_one_name_are_refused(source, save, make):
    save("raw/train/deep/a.jpg", IMAGE)
    with pytest.raises(DeepLabError, match=r"a\.(png|jpg) and .*a\.(png|jpg) have the same name"):
        make()


def test_datasets_of_earlier_versions_have_no_notes(make, reporter):
    directory = prepare(make, reporter=reporter).directory
    path = directory / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["notes"]
    path.write_text(json.dumps(metadata))
    assert Preparation.read(directory).notes == ()
