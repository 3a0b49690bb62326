"""Masks as annotators deliver them: formats, names and layouts, through the real commands."""

import functools
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from reporters import RecordingReporter
from strangers import (
    CLASS_NAMES,
    command,
    drawings,
    prepare,
    prepare_and_train,
    refused,
    write_picture,
    write_source,
)

from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.builders.folder_files import find_files
from deeplab_jax.data.builders.pairing import match_names
from deeplab_jax.data.preparation import prepare as prepare_in_python
from deeplab_jax.errors import DeepLabError


def lossless(path, label):
    write_picture(path, label, lossless=True, exact=True)


def with_palette(path, label):
    image = PIL.Image.fromarray(label)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path, optimize=False)


def in_16_bits(path, label):
    cv2.imwrite(str(path), label.astype(np.uint16))


def signed(path, label):
    np.save(path, np.where(label == 255, 255, label).astype(np.int64))


# Place of a mask below the source, and how it is written.
FORMATS = {
    "png": ("masks/{split}/{name}.png", write_picture),
    "palette png": ("masks/{split}/{name}.PNG", with_palette),
    "16-bit png": ("masks/{split}/{name}.png", in_16_bits),
    "gif": ("masks/{split}/{name}.gif", write_picture),
    "gif of colors": ("masks/{split}/{name}.gif", with_palette),
    "tiff": ("masks/{split}/{name}_mask.tif", write_picture),
    "bmp": ("masks/{split}/{name}-label.bmp", write_picture),
    "lossless webp": ("masks/{split}/{name}_gt.webp", lossless),
    "npy": ("masks/{split}/{name}.npy", write_picture),
    "npy of int64": ("masks/{split}/mask_{name}.npy", signed),
    "doubled suffix": ("masks/{split}/{name}.png.png", write_picture),
    "flat masks": ("masks/{name}.png", write_picture),
    "side by side": ("images/{split}/{name}_mask.png", write_picture),
    "splits outside": ("{split}/labels/{name}.png", write_picture),
    "folder names": ("{split}_masks/{name}_mask.gif", with_palette),
}
IMAGES = {
    "splits outside": "{split}/images/{name}.png",
    "folder names": "{split}/{name}.png",
    "doubled suffix": "images/{split}/{name}.png",
}


def source_of(tmp_path, kind):
    mask, write = FORMATS[kind]
    image = IMAGES.get(kind, "images/{split}/{name}.png")
    return write_source(tmp_path / "source", image=image, mask=mask, write_mask=write)


def check_labels(prepared):
    labels = prepared.labels()
    assert labels.keys() == {drawing.name for drawing in drawings()}
    for drawing in drawings():
        assert np.array_equal(labels[drawing.name], drawing.label)
    assert prepared.split("train").descriptor.class_names == CLASS_NAMES


@pytest.mark.parametrize("kind", FORMATS)
def test_masks_of_every_format_are_prepared(tmp_path, kind):
    check_labels(prepare(tmp_path, f"--source={source_of(tmp_path, kind)}"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "gif", "tiff", "bmp", "lossless webp", "npy"])
def test_masks_of_every_format_train(tmp_path, kind):
    prepared, _ = prepare_and_train(tmp_path, f"--source={source_of(tmp_path, kind)}")
    check_labels(prepared)


def test_links_are_followed_without_cycles(tmp_path):
    elsewhere = write_source(tmp_path / "elsewhere")
    source = tmp_path / "source"
    source.mkdir()
    (source / "images").symlink_to(elsewhere / "images")
    (source / "masks").mkdir()
    for split in ("train", "val"):
        (source / "masks" / split).symlink_to(elsewhere / "masks" / split)
    (elsewhere / "images/train/again").symlink_to(elsewhere / "images")
    (elsewhere / "masks/train/again").symlink_to(elsewhere / "masks/train")
    first = next((elsewhere / "masks/train").glob("*.png"))
    first.rename(tmp_path / "file")
    first.symlink_to(tmp_path / "file")
    words = f"--source={source}", f"--classes={elsewhere / 'classes.txt'}"
    check_labels(prepare(tmp_path, *words))


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("IMG_1 IMG_2", "img_1 img_2", "img_1 img_2"),
        ("frame_1 frame_10", "0001 0010", "0001 0010"),
        ("a b", "a.jpg b.png", "a.jpg b.png"),
        ("img_1 img_2", "mask_2 mask_1", "mask_1 mask_2"),
        ("a_rgb b_rgb", "a_ids b_ids", "a_ids b_ids"),
        ("train/a val/b", "a b", "a b"),
        ("a ab abc", "abc_m ab_m a_m", "a_m ab_m abc_m"),
        ("a b c", "a_m b_m", "a_m b_m -"),
        ("a A", "a A", "a A"),
        ("1 2", "1 2 11 12", "1 2"),
        ("img10 img11 img20", "mask10 mask11", "mask10 mask11 -"),
        ("img_1 img_2", "mask_01 mask_02", "mask_01 mask_02"),
        ("1 2 3", "11 12 13", None),
        ("img_001 img_002", "img_101 img_102", None),
        ("img10 img11", "mask20 mask21", None),
        ("a b", "a_1 a_2 b_1 b_2", None),
        ("a b", "c d", None),
    ],
)
def test_names_are_matched_by_one_rule(images, masks, expected):
    named = ({key: Path(f"{key}.png") for key in keys.split()} for keys in (images, masks))
    if expected is None:
        with pytest.raises(DeepLabError, match=r"two masks each|none of \d images"):
            match_names(*named)
        return
    matching = match_names(*named)
    assert [matching.mask_of.get(key, "-") for key in images.split()] == expected.split()


def test_folders_that_do_not_match_are_the_reason_if_names_occur_twice():
    images, masks = (
        {f"{split}/{folder}1": Path(split, folder, "1.png") for split in ("train", "val")}
        for folder in ("raw/", "")
    )
    complaint = r"none of 2 images .*; several files in different folders have the same name, so"
    with pytest.raises(DeepLabError, match=complaint):
        match_names(images, masks)


def test_names_are_matched_in_either_unicode_form():
    names = [("Ba\u0308ume", "B\xe4ume"), ("b", "b")]
    images, masks = ({name: Path(f"{name}.png") for name in of} for of in zip(*names, strict=True))
    assert match_names(images, masks).mask_of == dict(names)


@pytest.mark.parametrize(
    ("files", "pairs"),
    [
        ("train/a.jpg train/b.jpg train_masks/a_mask.gif train_masks/b_mask.gif", 2),
        ("JPEGImages/a.jpg JPEGImages/b.jpg SegmentationClass/a.png SegmentationClass/b.png", 2),
        ("x/imgs/a.jpg x/imgs/b.jpg x/foo/a.png x/foo/b.png", 2),
        ("a.jpg a.png b.jpg b.png", 2),
        ("train/a.jpg train/a_mask.jpg val/b.jpg val/b_mask.jpg classes.txt", 2),
        ("images/a.jpg images/a_label.png images/b.jpg images/b_label.png", 2),
        ("images/a.jpg images/b.jpg previews/a.jpg masks/a.png masks/b.png", 2),
        ("images/a.jpg images/b.jpg gt/a.png labels/a.png", "same name.*--masks=DIR"),
        ("1.png 2.png 10.png 20.png", "no masks found among 4 pictures"),
    ],
)
def test_layouts_are_understood_or_explained(tmp_path, files, pairs):
    for name in files.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if isinstance(pairs, str):
        with pytest.raises(DeepLabError, match=pairs):
            find_files(tmp_path, None, "")
        return
    matching = match_names(*find_files(tmp_path, None, ""))
    assert len(matching.mask_of) == pairs
    assert matching.without_mask == matching.without_image == ()


def first_mask(source, suffix=".png"):
    return sorted((source / "masks/train").glob(f"*{suffix}"))[0]


def rewrite(source, save, suffix):
    """Replaces every mask by a file of another format."""
    for path in sorted((source / "masks").rglob("*.png")):
        save(path.with_suffix(suffix), np.asarray(PIL.Image.open(path)))
        path.unlink()


def write_jpeg(path, label):
    PIL.Image.fromarray(label).save(path, quality=100)


def jpegs(source):
    rewrite(source, write_jpeg, ".jpg")


def one_jpeg(source):
    path = first_mask(source)
    write_jpeg(path.with_suffix(".jpg"), np.asarray(PIL.Image.open(path)))
    path.unlink()


def lossy_webp(source):
    rewrite(source, functools.partial(write_picture, quality=100), ".webp")


def jpeg_in_tiff(source):
    path = first_mask(source)
    PIL.Image.open(path).convert("L").save(path.with_suffix(".tif"), compression="jpeg")
    path.unlink()


def array(values):
    def spoil(source):
        path = first_mask(source)
        np.save(path.with_suffix(".npy"), values(np.asarray(PIL.Image.open(path))))
        path.unlink()

    return spoil


def objects(label):
    return label.astype(object)


def pickled(source):
    path = first_mask(source)
    np.save(path.with_suffix(".npy"), np.array([{}, []], object), allow_pickle=True)
    path.unlink()


def cut_array(source):
    array(np.int32)(source)
    path = first_mask(source, ".npy")
    path.write_bytes(path.read_bytes()[:-100])


def renamed(new):
    def spoil(source):
        path = first_mask(source)
        path.rename(path.with_name(new.format(stem=path.stem)))

    return spoil


def all_masks_to(suffix):
    def spoil(source):
        for path in sorted((source / "masks").rglob("*.png")):
            path.rename(path.with_suffix(suffix))

    return spoil


def other_names(source):
    for number, path in enumerate(sorted((source / "masks").rglob("*.png"))):
        path.rename(path.with_name(f"{'abcdefgh'[number]}.png"))


def two_kinds(source):
    for path in sorted((source / "masks").rglob("*.png")):
        for reader in (1, 2):
            write_picture(
                path.with_name(f"{path.stem}_reader{reader}.png"), np.asarray(PIL.Image.open(path))
            )
        path.unlink()


def further_mask(source):
    path = first_mask(source)
    write_picture(path.with_name(f"{path.stem}_old.png"), np.asarray(PIL.Image.open(path)))


def two_formats(source):
    path = first_mask(source)
    np.save(path.with_suffix(".npy"), np.asarray(PIL.Image.open(path)))


def no_masks(source):
    for path in sorted((source / "masks").rglob("*.png")):
        path.unlink()


def no_folders(source):
    no_masks(source)
    for folder in ("masks/train", "masks/val", "masks"):
        (source / folder).rmdir()


def animation(source):
    path = first_mask(source)
    frames = [PIL.Image.fromarray(np.full((48, 48), value, np.uint8)) for value in (1, 2)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])
    path.unlink()


def image_as_heic(source):
    path = source / "images/train/drawing_0.png"
    path.rename(path.with_suffix(".heic"))


def archive(source):
    source.rename(source.with_name("renamed"))
    source.write_bytes(b"PK")


def broken_link(source):
    path = first_mask(source)
    path.unlink()
    path.symlink_to("moved/away.png")


def broken_folder(source):
    (source / "masks/more").symlink_to(source / "gone")


def broken_source(source):
    source.rename(source.with_name("renamed"))
    source.symlink_to("nowhere")


# Each spoils a source of PNG masks in train/ and val/; the line must match the pattern.
SPOILT = {
    "all JPEG": (jpegs, r"drawing_0\.jpg: JPEG compression .* as PNG .*6 x JPEG compression"),
    "one JPEG": (one_jpeg, r"drawing_0\.jpg: JPEG compression changes values"),
    "lossy WebP": (lossy_webp, r"drawing_0\.webp: WEBP compression changes values"),
    "JPEG in TIFF": (jpeg_in_tiff, r"drawing_0\.tif: JPEG compression changes values"),
    "fractions": (array(np.float32), r"drawing_0\.npy: .* an array of float32 .*integers"),
    "channels": (array(lambda label: label[None]), r"\.npy: .* shape \(1, 48, 48\).*\(height"),
    "pickle": (pickled, r"drawing_0\.npy: the file is not a NumPy array"),
    "cut array": (cut_array, r"drawing_0\.npy: the file is not a NumPy array"),
    "negative": (
        array(lambda label: label.astype(np.int16) - 1),
        r"drawing_0\.npy: illegal mask value -1 \(\d+ pixels\).*legal: classes 0\.\.5, void 255",
    ),
    "far value": (
        array(lambda label: label.astype(np.int64) << 40),
        r"drawing_0\.npy: the values 0\.\.\d+ are not class indices",
    ),
    "other suffix": (
        renamed("{stem}.json"),
        r"train/drawing_0\.png: the image has no mask; .*drawing_0\.png: no such file, but there "
        r"is drawing_0\.json",
    ),
    "another name": (
        renamed("{stem}_m.png"),
        r"the image has no mask; .*did you mean 'drawing_0_m\.png'\?.*1 x the mask has no image",
    ),
    "all XML": (
        all_masks_to(".xml"),
        r"no masks found; the folder contains 6 \.xml, but masks must",
    ),
    "all ZIP": (
        all_masks_to(".npz"),
        r"no masks found; the folder contains 6 \.npz, but masks must",
    ),
    "other names": (
        other_names,
        r"none of 6 images \(drawing_0\.png, .*, …\) has a mask among 6 masks \(a\.png, .*prefix",
    ),
    "two kinds": (
        two_kinds,
        r"6 images have two masks each; for example, drawing_0\.png has drawing_0_reader1\.png and "
        r"drawing_0_reader2\.png; .*--masks=DIR",
    ),
    "further mask": (
        further_mask,
        r"drawing_0_old\.png: the mask has no image; .*names must match as in drawing_0\.png",
    ),
    "two formats": (two_formats, r"drawing_0\.\w+ and .*drawing_0\.\w+ have the same name"),
    "no masks": (no_masks, r"masks: no masks found; the folder contains no files, but masks must"),
    "no folder": (
        no_folders,
        r"no masks found among 6 pictures .*contains images/ and masks",
    ),
    "animation": (animation, r"drawing_0\.gif: the GIF file contains 2 pictures"),
    "image as HEIC": (
        image_as_heic,
        r"drawing_0\.png: the mask has no image; .*images/train/drawing_0\.jpg: no such "
        r"file, but there is drawing_0\.heic",
    ),
    "archive": (archive, r"source: a file, not a directory \(an archive must be unpacked\)"),
    "broken link": (broken_link, r"drawing_0\.png: broken symbolic link to moved/away\.png"),
    "broken folder": (broken_folder, r"masks/more: broken symbolic link to .*gone; repair"),
    "broken source": (broken_source, r"source: broken symbolic link to nowhere; repair"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_spoilt_masks_are_refused_in_one_line(tmp_path, kind):
    source = write_source(tmp_path / "source")
    spoil, pattern = SPOILT[kind]
    classes = (source / "classes.txt").rename(tmp_path / "classes.txt")
    spoil(source)
    words = [f"--source={source}", f"--classes={classes}", f"--data_dir={tmp_path / 'data'}"]
    refused(pattern, "prepare", "folder", *words, unwritten=tmp_path / "data")
    reporter = RecordingReporter()
    with pytest.raises(DeepLabError, match=pattern):
        prepare_in_python(
            lambda: Folder(
                source=source, classes=classes, data_dir=tmp_path / "data", reporter=reporter
            ),
            reporter=reporter,
        )


@pytest.mark.parametrize("spoil", [no_masks, jpegs])
def test_unreadable_masks_are_not_said_to_hold_0_and_255(tmp_path, spoil):
    source = write_source(tmp_path / "source")
    (source / "classes.txt").write_text("background\nobject\n")
    spoil(source)
    words = ["prepare", "folder", f"--source={source}", f"--data_dir={tmp_path / 'data'}"]
    refused("", *words, unwritten=tmp_path / "data")
    _, _, err = command(*words)
    assert "0 and 255" not in err


def test_a_split_without_usable_examples_counts_the_reasons(tmp_path):
    source = write_source(tmp_path / "source")
    masks = sorted((source / "masks/val").iterdir())
    masks[0].unlink()
    write_jpeg(masks[1].with_suffix(".jpg"), np.asarray(PIL.Image.open(masks[1])))
    masks[1].unlink()
    refused(
        r"in split 'val': 1 x the image has no mask: drawing_2; 1 x JPEG compression .*: drawing_5"
        "; repair these files, or move all files of this split out of the source; nothing was",
        *("prepare", "folder", f"--source={source}", f"--data_dir={tmp_path / 'data'}"),
        "--skip_bad",
        unwritten=tmp_path / "data",
    )
