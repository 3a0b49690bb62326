"""Annotation files of five tools, made from the built-in shapes: read exactly, or refused."""

import base64
import functools
import hashlib
import io
import json
import re
import shutil
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_masks
from strangers import (
    CLASS_NAMES,
    Drawing,
    drawings,
    prepare,
    prepare_and_train,
    refused,
    write_picture,
)

from deeplab_jax.data.builders.coco import draw_object
from deeplab_jax.data.builders.exports import image_name, unpacked
from deeplab_jax.data.builders.labelme import LEAST_POINTS, draw_shape
from deeplab_jax.data.builders.registry import BUILDERS
from deeplab_jax.data.codecs import decode_image
from deeplab_jax.data.preparation import prepare as prepare_dataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import VOID_LABEL
from deeplab_jax.listing import unpack_zip
from deeplab_jax.reporter import Reporter

# pycocotools does not follow NumPy's newest protocol.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OBJECTS = dict(enumerate(CLASS_NAMES))
COLORS = {
    0: (0, 0, 0),
    1: (250, 50, 50),
    2: (50, 250, 50),
    3: (50, 50, 250),
    4: (9, 8, 7),
    5: (1, 2, 3),
}


def regions(label: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each class of a label, and void, but background, with its pixels."""
    for value in np.unique(label).tolist():
        if value:
            yield value, label == value


def png(pixels: np.ndarray) -> str:
    encoded = io.BytesIO()
    PIL.Image.fromarray(pixels).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


def save_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_labelme(source: Path) -> None:
    """Every third image is embedded, every second file has no size."""
    for number, drawing in enumerate(drawings()):
        shapes = []
        for value, mask in regions(drawing.label):
            (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0)
            shapes.append(
                {
                    "label": OBJECTS.get(value, "__ignore__"),
                    "points": [[int(left), int(top)], [int(right), int(bottom)]],
                    "shape_type": "mask",
                    "group_id": None,
                    "flags": {},
                    "mask": png(mask[top : bottom + 1, left : right + 1]),
                }
            )
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None}
        if number % 3:
            write_picture(source / "photos" / f"{drawing.name}.png", drawing.image)
            content["imagePath"] = f"..\\photos\\{drawing.name}.png"
        else:
            content |= {"imagePath": f"{drawing.name}.png", "imageData": png(drawing.image)}
        if number % 2:
            content["imageHeight"], content["imageWidth"] = drawing.label.shape
        save_json(source / drawing.split / f"{drawing.name}.json", content)
    (source / "classes.txt").write_text("\n".join(["__ignore__", *CLASS_NAMES]))


def write_coco(source: Path) -> None:
    for split in ("train", "val"):
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 10 * n, "name": OBJECTS[n]} for n in (3, 1, 5, 2, 4)],
        }
        for number, drawing in enumerate(one for one in drawings() if one.split == split):
            write_picture(source / "images" / split / f"{drawing.name}.png", drawing.image)
            height, width = drawing.label.shape
            size = {"height": height, "width": width}
            image = {"id": number, "file_name": f"{drawing.name}.png", **size}
            content["images"].append(image)
            for value, mask in regions(drawing.label):
                void = value == VOID_LABEL
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]),
                        "image_id": number,
                        "category_id": 10 if void else 10 * value,
                        "iscrowd": int(void),
                        "segmentation": compressed(mask) if value % 2 else plain(mask),
                    }
                )
        save_json(source / "annotations" / f"instances_{split}.json", content)


def compressed(mask: np.ndarray) -> dict:
    runs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def plain(mask: np.ndarray) -> dict:
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    changes = np.flatnonzero(np.diff(flat.astype(int)))
    counts = np.diff([0, *changes.tolist(), mask.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


def write_cvat(source: Path) -> None:
    lines = [f"{OBJECTS[n]}:{','.join(map(str, color))}::" for n, color in COLORS.items()]
    source.mkdir(parents=True)
    header = "# label:color_rgb:parts:actions\n"
    (source / "labelmap.txt").write_text(header + "\n".join([*lines, "ignore:255,255,255::"]))
    colors = np.full((256, 3), 255, np.uint8)
    colors[list(COLORS)] = list(COLORS.values())
    lists = {"train": "Train", "val": "Validation"}
    for drawing in drawings():
        write_picture(source / "JPEGImages" / f"{drawing.name}.png", drawing.image)
        write_picture(source / "SegmentationClass" / f"{drawing.name}.png", colors[drawing.label])
        path = source / "ImageSets/Segmentation" / f"{lists[drawing.split]}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"{drawing.name}\n")


def write_label_studio(source: Path) -> None:
    """There is no void, but a class of that name; the JSON names images in several ways."""
    tasks = []
    for number, drawing in enumerate(drawings(), 1):
        write_picture(source / "images" / f"{drawing.name}.png", drawing.image)
        names = [
            f"/data/upload/1/0a1b2c3d-{drawing.name}.png",
            f"/data/local-files/?d=images%2F{drawing.name}.png",
            f"https://example.org/bucket/{drawing.name}.png?token=x",
        ]
        results = [{"from_name": "my-tag", "type": "brushlabels"}]
        tasks.append(
            {
                "id": number,
                "data": {"image": names[number % 3]},
                "annotations": [{"result": results}],
            }
        )
        for value, mask in regions(drawing.label):
            name = OBJECTS.get(value, "ignore")
            file = f"task-{number}-annotation-{number + 40}-by-1-my-tag-{name}-0.png"
            write_picture(source / "masks" / file, mask.astype(np.uint8) * 255)
    save_json(source / "project-1.json", tasks)


def write_yolo(source: Path) -> None:
    names = "\n".join(f"  {index}: {name}" for index, name in enumerate(CLASS_NAMES[1:]))
    source.mkdir(parents=True)
    (source / "data.yaml").write_text(f"train: ../images/train\nval: images/val\nnames:\n{names}\n")
    for drawing in drawings():
        write_picture(source / "images" / drawing.split / f"{drawing.name}.png", drawing.image)
        path = source / "labels" / drawing.split / f"{drawing.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for value, corners in polygons(drawing.label):
            numbers = (corners + 0.5) / drawing.label.shape[::-1]
            lines.append(f"{value - 1} {' '.join(f'{number:.6f}' for number in numbers.ravel())}")
        path.write_text("\n".join(lines))


def polygons(label: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the outlines of the regions of each class, without their holes."""
    for value, mask in regions(label):
        if value == VOID_LABEL:
            continue
        found = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        yield from ((value, contour[:, 0]) for contour in found[0] if len(contour) > 2)


def filled(drawing: Drawing) -> np.ndarray:
    """Returns the label that YOLO's polygons give, smaller ones in front."""
    masks = []
    for value, corners in polygons(drawing.label):
        mask = PIL.Image.fromarray(np.zeros(drawing.label.shape, np.uint8))
        pixels = np.array(mask)
        cv2.fillPoly(pixels, [corners.astype(np.int32)], 1)
        masks.append((value, pixels > 0))
    label = np.zeros_like(drawing.label)
    for value, mask in sorted(masks, key=lambda one: -one[1].sum()):
        label[mask] = value
    return label


WRITERS: dict[str, Callable[[Path], None]] = {
    "labelme": write_labelme,
    "coco": write_coco,
    "cvat": write_cvat,
    "label_studio": write_label_studio,
    "yolo": write_yolo,
}


@pytest.fixture
def source(tmp_path) -> Path:
    return tmp_path / "source"


@pytest.mark.parametrize("name", WRITERS)
def test_labels_are_those_that_were_drawn(name, source, tmp_path):
    WRITERS[name](source)
    words = [f"--source={source}"]
    if name == "label_studio":
        (tmp_path / "names.txt").write_text("\n".join(CLASS_NAMES))
        words.append(f"--classes={tmp_path / 'names.txt'}")
    prepared = prepare(tmp_path, *words, dataset=name)
    labels = prepared.labels()
    assert prepared.split("train").descriptor.class_names == CLASS_NAMES
    assert len(labels) == len(drawings())
    for drawing in drawings():
        key = next(key for key in labels if key.endswith(drawing.name))
        expected = filled(drawing) if name == "yolo" else drawing.label
        assert np.array_equal(labels[key], expected), key
    if name != "label_studio":
        in_val = {drawing.name for drawing in drawings() if drawing.split == "val"}
        val = prepared.split("val")
        assert {Path(val[index]["image_id"]).name for index in range(len(val))} == in_val


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_network_trains_on_each_format(name, source, tmp_path):
    WRITERS[name](source)
    prepare_and_train(tmp_path, f"--source={source}", dataset=name)


# Expected: number of pixels, and the start of the SHA-256 of the packed mask, that labelme 6.3.1
# draws on 40x56 (height x width).
LABELME_SHAPES = [
    ("polygon", [[3.2, 4.7], [40.5, 9.1], [33.3, 37.9], [20, 12.5], [5.5, 30.25]], 635, "ec961adf"),
    ("polygon", [[-9, 20.5], [30, -7.5], [70.25, 45]], 1395, "7f2e73bd"),
    ("rectangle", [[41.6, 30.2], [10.4, 5.5]], 832, "9f415b8a"),
    ("oriented_rectangle", [[20.5, 3.5], [44.5, 18.5], [33.5, 35.5], [9.5, 20.5]], 606, "11750a54"),
    ("circle", [[25.3, 20.8], [31.1, 29.6]], 376, "f0b1bbfb"),
    ("circle", [[2, 2], [50, 38]], 2213, "6d5b423d"),
    ("line", [[4.5, 35.5], [48.2, 3.3]], 504, "69ad06ab"),
    ("linestrip", [[5, 5], [25.5, 33.5], [45, 6.25], [52, 38]], 887, "ea8e49b6"),
    ("point", [[17.4, 11.9]], 97, "7acb9546"),
]


@pytest.mark.parametrize(("kind", "points", "pixels", "digest"), LABELME_SHAPES)
def test_labelme_shapes_are_drawn_as_by_labelme(kind, points, pixels, digest):
    mask = draw_shape(kind, points, (40, 56))
    assert mask.sum() == pixels
    assert hashlib.sha256(np.packbits(mask)).hexdigest().startswith(digest)


@pytest.mark.slow
def test_random_shapes_are_drawn_as_by_labelme(monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    # labelme removes the limit when it is imported.
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", PIL.Image.MAX_IMAGE_PIXELS)
    utils = pytest.importorskip("labelme.utils", exc_type=ImportError)
    random = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(random.integers(8, 90, 2).tolist())
        for kind, least in LEAST_POINTS.items():
            more = random.integers(6) if kind in ("polygon", "linestrip") else 0
            points = (random.uniform(-0.2, 1.2, (least + more, 2)) * size[::-1]).tolist()
            encoded = None
            if kind == "mask":
                (top, bottom), (left, right) = (sorted(random.integers(0, n, 2)) for n in size)
                points = [[left + 0.4, top + 0.7], [right + 0.2, bottom + 0.9]]
                blob = random.random((bottom - top + 1, right - left + 1)) < 0.5
                encoded, one = png(blob), {"label": "a", "shape_type": "mask", "points": points}
                found, _ = utils.shapes_to_label(size, [one | {"mask": blob}], {"a": 1})
                expected = found == 1
            else:
                expected = utils.shape_to_mask(size, points, kind)
            mask = draw_shape(kind, points, size, encoded)
            assert np.array_equal(mask, expected), (kind, points, size)


def test_objects_are_drawn_as_by_pycocotools():
    coco = pytest.importorskip("pycocotools.coco")
    random = np.random.default_rng(0)
    for _ in range(40):
        size = height, width = tuple(random.integers(8, 90, 2).tolist())
        outlines = [
            (random.uniform(-0.2, 1.2, (random.integers(3, 9), 2)) * size[::-1]).ravel().tolist()
            for _ in range(random.integers(1, 4))
        ]
        blob = random.random(size) < 0.4
        reference = coco.COCO()
        reference.imgs = {1: {"height": height, "width": width}}
        for segmentation in (outlines, plain(blob), compressed(blob)):
            expected = reference.annToMask({"image_id": 1, "segmentation": segmentation})
            assert np.array_equal(draw_object(coco_masks, segmentation, size), expected)


def test_a_single_polygon_may_lack_the_outer_list():
    polygon = [1, 1, 9, 1, 9, 7.5]
    expected = draw_object(coco_masks, [polygon], (12, 14))
    assert expected.any()
    assert np.array_equal(draw_object(coco_masks, polygon, (12, 14)), expected)
    with pytest.raises(DeepLabError, match="a polygon has 4 numbers"):
        draw_object(coco_masks, polygon[:4], (12, 14))


def test_compressed_run_lengths_that_are_cut_short_are_refused():
    blob = np.random.default_rng(0).random((13, 17)) < 0.4
    runs = compressed(blob)
    assert np.array_equal(draw_object(coco_masks, runs, blob.shape), blob)
    for end in range(len(runs["counts"])):
        cut = runs | {"counts": runs["counts"][:end]}
        with pytest.raises(DeepLabError, match="run lengths"):
            draw_object(coco_masks, cut, blob.shape)


def test_polygons_are_drawn_as_by_ultralytics(source, tmp_path):
    """The expected hash is that of the classes by polygons2masks_overlap of Ultralytics 8.4."""
    lines = [
        "0 0.1 0.1 0.9 0.12 0.85 0.93 0.3 0.7",
        "1 0.25 0.3 0.6 0.33 0.5 0.8",
        "2 0.55 0.05 1.0 0.0 0.99 0.5 0.7 0.61",
        "3 -0.004 0.6 0.3 0.55 0.33 1.004 0.0 1.0",
    ]
    write_picture(source / "images/train/a.png", np.zeros((41, 57, 3), np.uint8))
    (source / "labels/train").mkdir(parents=True)
    (source / "labels/train/a.txt").write_text("\n".join(lines))
    (source / "data.yaml").write_text("train: images/train\nnames: [a, b, c, d]\n")
    labels = built("yolo", source, tmp_path).load("train", "a").label
    assert hashlib.sha256(labels.tobytes()).hexdigest()[:16] == "fe0e5e0b16134e94"


def built(name: str, source: Path, tmp_path: Path, **options: object):
    return BUILDERS[name](source=source, data_dir=tmp_path / "data", **options)


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_files_in_splits_and_files_in_no_split_are_refused_together(source, tmp_path):
    write_coco(source)
    (source / "annotations/instances_val.json").rename(source / "annotations/instances_all.json")
    complaint = r"drawing_2 is in no split, but other files are in the split train; .*\(or name"
    with pytest.raises(DeepLabError, match=complaint):
        built("coco", source, tmp_path)


def test_the_prepared_dataset_may_be_inside_the_source(source):
    write_labelme(source)
    make = functools.partial(BUILDERS["labelme"], source=source, data_dir=source / "data")
    first = prepare_dataset(make, reporter=Reporter())
    assert (first.directory / "metadata.json").is_file()
    again = prepare_dataset(make, overwrite=True, reporter=Reporter())
    assert again.statistics == first.statistics


def test_later_shapes_of_labelme_are_in_front(source, tmp_path):
    write_picture(source / "a.png", np.zeros((20, 20, 3), np.uint8))
    shapes = [
        {"label": "small", "points": box(5, 5, 8, 8)},
        {"label": "large", "points": box(2, 2, 12, 12)},
        {"label": "__ignore__", "points": box(0, 0, 3, 3), "shape_type": "polygon"},
    ]
    save_json(source / "a.json", {"shapes": shapes, "imagePath": "a.png", "imageData": None})
    builder = built("labelme", source, tmp_path)
    assert builder.descriptor.class_names == ("background", "large", "small")
    label = builder.load("train", "a").label
    assert label[6, 6] == label[12, 12] == 1
    assert label[3, 3] == VOID_LABEL
    assert label[13, 13] == 0


def test_smaller_objects_of_coco_are_in_front_and_crowds_behind(source, tmp_path):
    write_picture(source / "a.png", np.zeros((20, 20, 3), np.uint8))
    outlines = [box(5, 5, 8, 8), box(2, 2, 12, 12), box(0, 0, 3, 3), box(0, 0, 20, 3)]
    objects = [
        {
            "id": number,
            "image_id": "a",
            "category_id": 7 - number % 2,
            "iscrowd": int(number == 2),
            # The area of the file is not trusted.
            "area": 1000 - number,
            "segmentation": [np.ravel(outline).tolist()],
        }
        for number, outline in enumerate(outlines)
    ]
    content = {
        "images": [{"id": "a", "file_name": "a.png"}],
        "annotations": objects,
        "categories": [{"id": 7, "name": "cat"}, {"id": 6, "name": "background"}],
    }
    save_json(source / "mine.json", content)
    builder = built("coco", source, tmp_path)
    assert builder.descriptor.class_names == ("background", "cat")
    label = builder.load("train", "a").label
    assert label[6, 6] == 1
    assert label[10, 10] == 0
    assert label[0, 0] == 0
    content["annotations"].pop()
    save_json(source / "mine.json", content)
    assert built("coco", source, tmp_path).load("train", "a").label[0, 0] == VOID_LABEL


def test_crowds_of_coco_are_counted_and_refused_if_there_is_nothing_else(source, tmp_path):
    write_coco(source)
    (note,) = [note for note in built("coco", source, tmp_path).notes() if "crowds" in note]
    counted = re.match(r"(\d+) of (\d+) annotations are crowds .*`prepare cvat`", note)
    files = [*(source / "annotations").iterdir()]
    contents = {path: json.loads(path.read_text()) for path in files}
    things = [thing for content in contents.values() for thing in content["annotations"]]
    crowds = sum(thing["iscrowd"] for thing in things)
    assert [int(number) for number in counted.groups()] == [crowds, len(things)]
    for thing in things:
        thing["iscrowd"] = 1
    for path, content in contents.items():
        save_json(path, content)
    with pytest.raises(DeepLabError, match=rf"all {len(things)} annotations are crowds .*cvat"):
        built("coco", source, tmp_path)
    for content in contents.values():
        content["annotations"] = [thing | {"iscrowd": 0} for thing in content["annotations"]]
    for path, content in contents.items():
        save_json(path, content)
    assert not any("crowds" in note for note in built("coco", source, tmp_path).notes())


def test_two_images_of_coco_with_one_file_name_are_reported_and_others_are_read(source, tmp_path):
    write_coco(source)
    path = source / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    first, second = content["images"][:2]
    second["file_name"] = first["file_name"]
    content["images"].append(first | {"id": "other", "file_name": "other.png"})
    pictures = source / "images/train"
    shutil.copyfile(pictures / first["file_name"], pictures / "other.png")
    save_json(path, content)
    builder = built("coco", source, tmp_path)
    assert not builder.load("train", "other").label.any()
    reasons = [problem.reason for problem in builder.problems()]
    assert len(reasons) == 2
    for reason, number in zip(sorted(reasons), (0, 1), strict=True):
        assert f"image {number}: 2 entries in `images` have the file_name" in reason


def test_images_of_coco_may_differ_only_in_their_suffixes(source, tmp_path):
    write_coco(source)
    path, pictures = source / "annotations/instances_train.json", source / "images/train"
    content = json.loads(path.read_text())
    first, second = content["images"][:2]
    shutil.copyfile(pictures / first["file_name"], pictures / "drawing_0.bmp")
    content["images"].append(first | {"id": 70, "file_name": "drawing_0.bmp"})
    content["images"].append(second | {"id": 71, "file_name": f"./{second['file_name']}"})
    save_json(path, content)
    builder = built("coco", source, tmp_path)
    assert builder.load("train", "drawing_0/0").label.any()
    assert not builder.load("train", "drawing_0/70").label.any()
    reasons = sorted(problem.reason for problem in builder.problems())
    assert len(reasons) == 2
    for reason, number in zip(reasons, (1, 71), strict=True):
        assert f"image {number}: 2 entries in `images` have the file_name" in reason


def test_labelme_draws_on_the_displayed_image(source, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    write_picture(source / "a.jpg", np.zeros((16, 16, 3), np.uint8), exif=exif)
    shapes = [{"label": "cat", "points": box(0, 0, 3, 3)}]
    save_json(source / "a.json", {"shapes": shapes, "imagePath": "a.jpg", "imageData": None})
    assert built("labelme", source, tmp_path).load("train", "a").label[0, 0] == 1


@pytest.mark.parametrize("name", WRITERS)
def test_exports_are_read_from_zip_archives_too(name, source, tmp_path):
    WRITERS[name](source)
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in source.rglob("*"):
            file.write(path, Path("export") / path.relative_to(source))
        file.writestr("__MACOSX/export/._labelmap.txt", "")
    one, other = (built(name, place, tmp_path) for place in (source, archive))
    assert one.problems() == other.problems() == []
    shown = {Path(key).name for names in other.image_ids().values() for key in names}
    assert shown == {drawing.name for drawing in drawings()}


# The Finder of macOS writes UTF-8 without the flag for UTF-8.
@pytest.mark.parametrize(("encoding", "flag"), [("utf-8", 0), ("utf-8", 0x800), ("cp437", 0)])
def test_names_in_zip_archives_are_decoded(encoding, flag, tmp_path):
    expected = "Bäume/größe_0.txt"
    name = expected.encode(encoding)
    placeholder = "n" * len(name)
    path = archive(tmp_path / "a.zip", (placeholder, b"content"))
    content = bytearray(path.read_bytes().replace(placeholder.encode(), name))
    # Flags of the local header and of the entry in the central directory.
    for start, position in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.index(start) + position
        content[at : at + 2] = flag.to_bytes(2, "little")
    path.write_bytes(content)
    unpack_zip(path, tmp_path)
    assert (tmp_path / expected).read_bytes() == b"content"


ROBOFLOW = {"train": "train", "val": "valid"}


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_exports_of_roboflow_are_read(name, source, tmp_path):
    WRITERS[name](source)
    expected = built(name, source, tmp_path)
    examples = {
        (split, image): expected.load(split, image).label
        for split, images in expected.image_ids().items()
        for image in images
    }
    for split, other in ROBOFLOW.items():
        if name == "coco":
            (source / "images" / split).rename(source / other)
            json_file = source / f"annotations/instances_{split}.json"
            json_file.rename(source / other / "_annotations.coco.json")
        else:
            (source / other).mkdir()
            for kind in ("images", "labels"):
                (source / kind / split).rename(source / other / kind)
    if name == "yolo":
        data = (source / "data.yaml").read_text()
        data = data.replace("images/train", "train/images").replace("images/val", "valid/images")
        (source / "data.yaml").write_text(data)
    found = built(name, source, tmp_path)
    assert found.problems() == []
    for (split, image), label in examples.items():
        assert np.array_equal(found.load(split, image).label, label)


def test_a_text_file_of_yolo_lists_images(source, tmp_path):
    write_yolo(source)
    (source / "some.txt").write_text("./images/train/drawing_0.png\nimages/val/drawing_2.png\n")
    names = dict(enumerate(CLASS_NAMES[1:]))
    (source / "data.yaml").write_text(json.dumps({"train": "some.txt", "names": [*names.values()]}))
    builder = built("yolo", source, tmp_path)
    assert builder.image_ids() == {"train": ["images/train/drawing_0", "images/val/drawing_2"]}
    assert np.array_equal(
        builder.load("train", "images/val/drawing_2").label, filled(drawings()[2])
    )


def as_exported_by_cvat(source: Path, splits: dict[str, str], prefix: str) -> None:
    """Changes a source to the layout of CVAT's export "Ultralytics YOLO Segmentation 1.0"."""
    data = "path: .\nnames: [" + ", ".join(CLASS_NAMES[1:]) + "]\n"
    for split, name in splits.items():
        for kind in ("images", "labels"):
            (source / kind / split).rename(source / kind / name)
        paths = sorted((source / "images" / name).iterdir())
        lines = [f"{prefix}{path.relative_to(source).as_posix()}\n" for path in paths]
        (source / f"{name}.txt").write_text("".join(lines))
        data += f"{name}: {name}.txt\n"
    (source / "data.yaml").write_text(data)


@pytest.mark.parametrize("prefix", ["data/", "/home/other/", "C:\\other\\"])
@pytest.mark.parametrize("val", ["Validation", "valid"])
def test_exports_of_cvat_are_read_as_yolo(prefix, val, source, tmp_path):
    write_yolo(source)
    as_exported_by_cvat(source, {"train": "Train", "val": val}, prefix)
    builder = built("yolo", source, tmp_path)
    assert builder.problems() == []
    names = {split: {Path(name).name for name in ids} for split, ids in builder.image_ids().items()}
    assert names == {
        split: {drawing.name for drawing in drawings() if drawing.split == split}
        for split in ("train", "val")
    }
    label = builder.load("val", f"images/{val}/drawing_2").label
    assert np.array_equal(label, filled(drawings()[2]))


def test_one_image_of_yolo_is_not_read_for_two_paths(source, tmp_path):
    write_yolo(source)
    lists = {"train": "/a/images/train/drawing_0.png", "val": "/b/images/train/drawing_0.png"}
    for split, line in lists.items():
        (source / f"{split}.txt").write_text(line)
    names = ", ".join(CLASS_NAMES[1:])
    (source / "data.yaml").write_text(f"train: train.txt\nval: val.txt\nnames: [{names}]")
    problems = built("yolo", source, tmp_path).problems()
    assert [problem.split for problem in problems] == ["train", "val"]
    assert "2 annotations use it" in problems[0].reason


def test_yolo_without_the_directory_of_test_images_is_read_with_a_note(source, tmp_path):
    write_yolo(source)
    with (source / "data.yaml").open("a") as file:
        file.write("test: ../test/images\n")
    builder = built("yolo", source, tmp_path)
    assert [*builder.image_ids()] == ["train", "val"]
    assert builder.problems() == []
    assert f"{source}/data.yaml: test: ../test/images does not exist and is left out" in (
        builder.notes()
    )


@pytest.mark.parametrize("place", ["", "export"])
def test_classes_beside_or_inside_the_export_of_cvat_are_read(place, source, tmp_path):
    write_cvat(source / "export")
    (source / "another directory").mkdir()
    names = [OBJECTS[0], *reversed(CLASS_NAMES[1:])]
    (source / place / "classes.txt").write_text("\n".join(names))
    builder = built("cvat", source, tmp_path)
    assert builder.descriptor.class_names == tuple(names)
    assert builder.problems() == []


def test_one_list_of_cvat_is_split_by_a_hash(source, tmp_path):
    write_cvat(source)
    lists = sorted((source / "ImageSets/Segmentation").iterdir())
    (source / "ImageSets/Segmentation/default.txt").write_text(
        "".join(path.read_text() for path in lists)
    )
    with pytest.raises(DeepLabError, match=r"default.txt: 'default' is not the name of a split"):
        built("cvat", source, tmp_path)
    for path in lists:
        path.unlink()
    names = built("cvat", source, tmp_path).image_ids()
    assert {*names} == {"train", "val"}
    assert sum(map(len, names.values())) == len(drawings())


def triangle(path: Path, image: str, **content: object) -> None:
    """Writes a file of labelme with one shape."""
    shapes = [{"label": "disc", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]}]
    save_json(path, {"imagePath": image, "imageData": None, "shapes": shapes, **content})


def stored(builder, split: str, name: str) -> np.ndarray:
    return decode_image(builder.load(split, name).image)


def test_an_embedded_image_is_not_replaced_by_one_of_the_same_name(source, tmp_path):
    mine, other = (drawing.image for drawing in drawings()[:2])
    write_picture(source / "two/0001.png", other)
    triangle(source / "one/0001.json", "0001.png", imageData=png(mine))
    triangle(source / "two/0001.json", "0001.png")
    builder = built("labelme", source, tmp_path)
    splits = {name: split for split, names in builder.image_ids().items() for name in names}
    assert np.array_equal(stored(builder, splits["one/0001"], "one/0001"), mine)
    assert np.array_equal(stored(builder, splits["two/0001"], "two/0001"), other)


def test_an_image_of_another_annotation_is_not_used_for_a_missing_one(source, tmp_path):
    write_picture(source / "two/0001.png", drawings()[0].image)
    for folder in ("one", "two"):
        triangle(source / folder / "0001.json", "0001.png")
    (problem,) = built("labelme", source, tmp_path).problems()
    assert re.search(r"one/0001.json: its image .*two/0001.png .* 2 annotations", problem.reason)


@pytest.mark.parametrize("top", ["", "images/"])
def test_equal_names_in_two_splits_of_coco_are_different_images(top, source, tmp_path):
    write_coco(source)
    shutil.move(source / "images", tmp_path / "all")
    for drawing, (split, number) in zip(
        drawings(),
        [(split, number) for split in ("train", "val") for number in (0, 1)],
        strict=False,
    ):
        write_picture(source / f"{top}{split}/{number}.png", drawing.image)
    for split in ("train", "val"):
        path = source / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        content["images"] = [
            image | {"file_name": f"{number}.png"}
            for number, image in enumerate(content["images"][:2])
        ]
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] < 2]
        save_json(path, content)
    builder = built("coco", source, tmp_path)
    images = [stored(builder, split, name) for split in ("train", "val") for name in "01"]
    expected = [drawing.image for drawing in drawings()[:4]]
    assert np.array_equal(images, expected)
    (source / f"{top}train/0.png").unlink()
    (problem,) = built("coco", source, tmp_path).problems()
    assert re.search(r"no image '0.png' for the split train below", problem.reason)


@pytest.mark.parametrize("given", ["source", "images", "neither"])
def test_relative_and_absolute_paths_are_the_same(given, source, tmp_path, monkeypatch):
    monkeypatch.chdir(source.parent)
    write_label_studio(source)
    here = Path(source.name)
    places = {"source": here, "images": here / "images"}
    if given in places:
        places[given] = places[given].absolute()
    assert built("label_studio", tmp_path=tmp_path, **places).problems() == []
    for path in (source / "images").iterdir():
        triangle(source / f"{path.stem}.json", f"images/{path.name}")
    (source / "project-1.json").rename(source / "names.json")
    save_json(source / "names.json", ["background", "disc"])
    shutil.rmtree(source / "masks")
    builder = built("labelme", tmp_path=tmp_path, classes=source / "names.json", **places)
    assert builder.problems() == []
    assert not any("without annotation" in note for note in builder.notes())


def test_an_image_of_label_studio_may_lie_beside_the_json_file(source, tmp_path):
    write_label_studio(source)
    shutil.move(source / "images", tmp_path / "photos")
    shutil.move(tmp_path / "photos/drawing_0.png", source)
    assert built("label_studio", source, tmp_path, images=tmp_path / "photos").problems() == []


@pytest.mark.parametrize("cancelled", [False, True])
def test_only_submitted_empty_annotations_of_label_studio_are_background(
    cancelled, source, tmp_path
):
    write_label_studio(source)
    for path in (source / "masks").glob("task-1-*"):
        path.unlink()
    content = json.loads((source / "project-1.json").read_text())
    content[0]["annotations"] = [{"was_cancelled": cancelled, "result": []}]
    save_json(source / "project-1.json", content)
    builder = built("label_studio", source, tmp_path)
    found = {name for names in builder.image_ids().values() for name in names}
    assert ("images/drawing_0" in found) == (not cancelled)
    assert ("1 tasks without a brush mask are left out" in builder.notes()) == cancelled


def test_a_second_task_with_an_image_is_a_damaged_example_of_label_studio(source, tmp_path):
    write_label_studio(source)
    content = json.loads((source / "project-1.json").read_text())
    image = {"image": "/data/upload/2/4d5e6f70-drawing_0.png"}
    content.append({"id": 99, "data": image, "annotations": [{"result": []}]})
    save_json(source / "project-1.json", content)
    (problem,) = built("label_studio", source, tmp_path).problems()
    assert problem.image_id == "task-99"
    name = r"\S*images/drawing_0\.png"
    assert re.search(rf"task 99: the image {name} has the same name as {name} of", problem.reason)


def test_images_of_yolo_may_lie_outside_the_source(source, tmp_path):
    write_yolo(source)
    for name in ("images", "labels"):
        shutil.move(source / name, tmp_path / "photos" / name)
    edited = (source / "data.yaml").read_text()
    (source / "data.yaml").write_text(f"path: {tmp_path / 'photos'}\n{edited}")
    builder = built("yolo", source, tmp_path, images=tmp_path / "photos")
    assert np.array_equal(builder.load("val", "drawing_2").label, filled(drawings()[2]))


def test_names_may_be_in_either_unicode_form(source, tmp_path):
    names = [unicodedata.normalize("NFD", name) for name in ("Bäume", "Café")]
    for name, drawing in zip(names, drawings(), strict=False):
        write_picture(source / f"{name}.png", drawing.image)
        triangle(source / f"{name}.json", unicodedata.normalize("NFC", f"{name}.png"))
    assert built("labelme", source, tmp_path).problems() == []


@pytest.mark.parametrize("name", ["cvat", "yolo"])
def test_several_exports_in_one_source_are_refused_with_their_names(name, source, tmp_path):
    file = {"cvat": "labelmap.txt", "yolo": "data.yaml"}[name]
    for number in (1, 2):
        WRITERS[name](source / f"job_{number}")
    with pytest.raises(DeepLabError, match=rf"2 exports, .*job_1/{file}, .*job_2/{file}; prepare"):
        built(name, source, tmp_path)
    shutil.move(source / "job_1", tmp_path / "top")
    shutil.move(source / "job_2", tmp_path / "top" / "backup")
    assert built(name, tmp_path / "top", tmp_path).problems() == []


def test_two_descriptions_of_one_yolo_export_are_refused_with_the_remedy(source, tmp_path):
    write_yolo(source)
    shutil.copy(source / "data.yaml", source / "dataset.yaml")
    with pytest.raises(DeepLabError, match=r"data\.yaml, .*dataset\.yaml; .*keep only one of them"):
        built("yolo", source, tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_images_of_16_bits_are_mapped_by_the_given_range(name, source, tmp_path):
    WRITERS[name](source)
    for path in source.rglob("drawing_1.png"):
        if path.parent.name != "SegmentationClass":
            deep = np.full(drawings()[1].label.shape, 1500, np.uint16)
            PIL.Image.fromarray(deep).save(path)
    builder = built(name, source, tmp_path, intensity_range=(1000, 2000))
    assert builder.problems() == []
    names = [(split, key) for split, keys in builder.image_ids().items() for key in keys]
    split, key = next((split, key) for split, key in names if key.endswith("drawing_1"))
    assert (decode_image(builder.load(split, key).image) == 128).all()


def test_images_may_lie_elsewhere(source, tmp_path):
    write_label_studio(source)
    (source / "images").rename(tmp_path / "photos")
    (source / "project-1.json").rename(tmp_path / "project.json")
    with pytest.raises(DeepLabError, match="contains 0 JSON files; give the JSON export"):
        built("label_studio", source, tmp_path)
    options = {"annotations": tmp_path / "project.json", "images": tmp_path / "photos"}
    assert built("label_studio", source, tmp_path, **options).problems() == []


def edit(source: Path, name: str, change: Callable[[dict], object]) -> None:
    """Changes a JSON file."""
    path = source / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shape(**fields: object) -> Callable[[Path], None]:
    """Changes the first shape of a file of labelme."""
    return functools.partial(
        edit,
        name="train/drawing_1.json",
        change=lambda content: content["shapes"][0].update(fields),
    )


def labelme(**fields: object) -> Callable[[Path], None]:
    return functools.partial(
        edit, name="train/drawing_1.json", change=lambda content: content.update(fields)
    )


def thing(**fields: object) -> Callable[[Path], None]:
    """Changes the first object of a file of COCO."""
    return functools.partial(
        edit,
        name="annotations/instances_val.json",
        change=lambda content: content["annotations"][0].update(fields),
    )


def coco(**fields: object) -> Callable[[Path], None]:
    return functools.partial(
        edit, name="annotations/instances_val.json", change=lambda content: content.update(fields)
    )


def text(name: str, content: str) -> Callable[[Path], None]:
    """Replaces a file."""
    return lambda source: (source / name).write_text(content)


def removed(name: str) -> Callable[[Path], None]:
    return lambda source: min(source.glob(name)).unlink()


def cropped(name: str) -> Callable[[Path], None]:
    """Cuts the last row off a picture."""

    def cut(source: Path) -> None:
        path = min(source.glob(name))
        write_picture(path, np.asarray(PIL.Image.open(path))[:-1])

    return cut


def copied(name: str, pattern: str, replacement: str) -> Callable[[Path], None]:
    """Copies a file under another name."""

    def copy(source: Path) -> None:
        path = min(source.glob(name))
        path.with_name(re.sub(pattern, replacement, path.name)).write_bytes(path.read_bytes())

    return copy


LABELS = "labels/train/drawing_0.txt"
SPOILT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "broken JSON": ("labelme", text("train/drawing_1.json", "{"), r"drawing_1.json: invalid JSON"),
    "no shapes": (
        "labelme",
        labelme(shapes=3),
        r"the key 'shapes' is missing",
    ),
    "no label": ("labelme", shape(label=" "), r"drawing_1.json: shape 1 has no label"),
    "unknown label": ("labelme", shape(label="dics"), r"unknown class 'dics'; did you mean 'disc'"),
    "unknown type": (
        "labelme",
        shape(shape_type="blob"),
        r"shape 1 \('blob', 'disc'\): unknown shape_type 'blob'",
    ),
    "empty polygon": (
        "labelme",
        shape(shape_type="polygon", points=[]),
        r"drawing_1.json cannot be drawn: shape 1 .*: the shape has 0 points, but at least 3 are ",
    ),
    "a point too many": (
        "labelme",
        shape(points=[[1, 1]] * 3),
        r"the shape has 3 points, but its type requires exactly 2",
    ),
    "not a number": (
        "labelme",
        shape(shape_type="polygon", points=[[1, 1], [float("nan"), 2], [3, 4]]),
        r"the point \(x, y\) = \(nan, 2\) is far outside the image of 48x48",
    ),
    "text as point": ("labelme", shape(points=[["a", 1], [2, 3]]), "must be pairs of numbers"),
    "mask of another size": ("labelme", shape(points=[[0, 0], [1, 1]]), "does not fit the box"),
    "mask is no image": ("labelme", shape(mask="?"), "the mask must be a base64-encoded image"),
    "no image": ("labelme", labelme(imagePath="b.png"), r"drawing_1.json: no image 'b.png' below"),
    "image elsewhere": ("labelme", labelme(imagePath="/etc/hosts"), r"no image '/etc/hosts' below"),
    "damaged image data": (
        "labelme",
        labelme(imagePath="b.png", imageData="AAAA"),
        r"drawing_1.json: imageData: not an image, or in a format that cannot be read",
    ),
    "no size": ("labelme", labelme(imageHeight={}), r"height {} and width 48 must be positive"),
    "size differs": (
        "labelme",
        labelme(imageHeight=47, imageWidth=48),
        r"the annotations state 47x48 \(height x width\) .*, but the image file is 48x48",
    ),
    "id of a category": ("coco", coco(categories=[{"id": []}]), "the category None with the id"),
    "no file name": (
        "coco",
        lambda source: edit(
            source,
            name="annotations/instances_val.json",
            change=lambda content: content["images"][0].update(file_name=""),
        ),
        r"instances_val.json: image 0: no image '' below",
    ),
    "no file names": (
        "coco",
        lambda source: edit(
            source,
            name="annotations/instances_val.json",
            change=lambda content: [image.pop("file_name") for image in content["images"]],
        ),
        r"instances_val.json: image 0: no image '' below .*\(and 1 more",
    ),
    "two equal names": (
        "coco",
        lambda source: (source / "instances_val.json").write_bytes(
            (source / "annotations/instances_val.json").read_bytes()
        ),
        r"instances_val.json: the image .* has the same name as .*; rename one",
    ),
    "not COCO": (
        "coco",
        text("annotations/instances_val.json", "[]"),
        "the key 'images' is missing or is not a list of objects",
    ),
    "no file": (
        "coco",
        lambda source: ["--annotations=no.json"],
        r"no.json: cannot read .*no such",
    ),
    "two corners": (
        "coco",
        thing(segmentation=[[1, 2, 3, 4]]),
        "polygon has 4 numbers",
    ),
    "a box alone": (
        "coco",
        thing(segmentation=[]),
        r"annotation has no outline .*only a box",
    ),
    "far corner": ("coco", thing(segmentation=[[1, 1, 1e9, 2, 3, 3]]), r"far outside the image"),
    "runs of another size": (
        "coco",
        thing(segmentation={"size": [3, 4], "counts": [12]}),
        r"run lengths have the size \[3, 4\] .*, but the image is \[48, 48\]",
    ),
    "short runs": ("coco", thing(segmentation={"size": [48, 48], "counts": [7]}), "have 7 pixels"),
    "damaged runs": (
        "coco",
        thing(segmentation={"size": [48, 48], "counts": "oo"}),
        "compressed run lengths are damaged",
    ),
    "long runs": (
        "coco",
        thing(segmentation={"size": [48, 48], "counts": "ooo1ooo1"}),
        "pixels in total, but the image has 2304",
    ),
    "unknown category": (
        "coco",
        thing(category_id=11),
        "category_id 11 is not .*; legal: 30",
    ),
    "unknown image": ("coco", thing(image_id=77), "annotation 0: its image_id 77 is not an id"),
    "image missing": (
        "coco",
        removed("images/val/*"),
        r"no image 'drawing_2.png' below .*--images",
    ),
    "text as label map": (
        "cvat",
        text("labelmap.txt", "disc 1 2 3"),
        r"line 1: the line must have the form",
    ),
    "no color": (
        "cvat",
        text("labelmap.txt", "disc:1,2:::"),
        r"must have the form `name:r,g,b::`",
    ),
    "a color twice": (
        "cvat",
        text("labelmap.txt", "a:1,1,1::\nb:1,1,1::"),
        "line 2: label 'b' has the same name or color",
    ),
    "unknown color": (
        "cvat",
        text("labelmap.txt", "disc:250,50,50::"),
        r"illegal color \(.*; add each color to .*labelmap.txt",
    ),
    "no label map": (
        "cvat",
        removed("labelmap.txt"),
        "no labelmap.txt in it; a cvat source is",
    ),
    "listed image missing": (
        "cvat",
        text("ImageSets/Segmentation/Train.txt", "drawing_9"),
        r"drawing_9\..*: no such file",
    ),
    "listed path leads out": (
        "cvat",
        text("ImageSets/Segmentation/Train.txt", "../drawing_0"),
        r"Train.txt: '../drawing_0' is outside",
    ),
    "mask cut": ("cvat", cropped("SegmentationClass/*"), r"the mask is 47x48 .* the same size"),
    "task not in JSON": (
        "label_studio",
        copied("masks/task-1-*", "task-1-", "task-99-"),
        r"task-99-.*: task 99 is not in .*project-1.json; export the project",
    ),
    "two annotations": (
        "label_studio",
        copied("masks/task-1-*", "-annotation-41-", "-annotation-50-"),
        r"task 1 has several annotations \(41, 50\); keep the masks of only one",
    ),
    "brush mask cut": (
        "label_studio",
        cropped("masks/task-1-*"),
        r"47x48 \(height x width\).*, but the image (file )?is 48x48",
    ),
    "task without image": ("label_studio", removed("images/drawing_0.png"), "task 1: no image"),
    "not the export": ("label_studio", text("project-1.json", "{}"), "not a list of tasks"),
    "class 9": (
        "yolo",
        text(LABELS, "9 0 0 1 0 1 1"),
        r"the class '9' is illegal; legal: 0..4",
    ),
    "pixels": (
        "yolo",
        text(LABELS, "\n0 0 0 30 0 1 1"),
        r"the coordinate 30 is illegal",
    ),
    "box": ("yolo", text(LABELS, "0 0.5 0.5 0.1 0.1"), "a box, not a polygon"),
    "odd": ("yolo", text(LABELS, "0 0 0 1 0 1 1 1"), "7 numbers after the class"),
    "words": ("yolo", text(LABELS, "0 a 0 1 0 1 1"), "coordinates must be numbers from 0 to 1"),
    "stray labels": (
        "yolo",
        text("labels/train/no.txt", "0 0 0 1 0 1 1"),
        r"no.txt: no image with this name in .*images/train; add the image",
    ),
    "broken YAML": ("yolo", text("data.yaml", "names: [a"), r"data.yaml: invalid YAML"),
    "a number as split": ("yolo", text("data.yaml", "train: 5\nnames: [a, b]"), "5 must be a path"),
    "no such date": ("yolo", text("data.yaml", "names: [2020-99-99]"), "data.yaml: invalid YAML"),
    "YAML's booleans": (
        "yolo",
        text("data.yaml", "train: images/train\nnames: [yes, no]"),
        "names must be a list of strings",
    ),
    "number of names": (
        "yolo",
        text("data.yaml", "train: images/train\nnames: [a, b]\nnc: 3"),
        r"there are 2 names, 2 of them different, and nc is 3",
    ),
    "no such split": (
        "yolo",
        text("data.yaml", "train: ../../images\nnames: [a, b]"),
        r"data.yaml: train: ../../images: no such directory of images below",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_damaged_annotations_are_refused_with_one_line(case, source, tmp_path):
    name, spoil, pattern = SPOILT[case]
    WRITERS[name](source)
    spoilt = spoil(source)
    options = spoilt if isinstance(spoilt, list) else []
    data = tmp_path / "data"
    words = ["prepare", name, f"--source={source}", f"--data_dir={data}", *options]
    line = refused(pattern, *words, unwritten=data)
    keywords = dict(option.removeprefix("--").split("=") for option in options)
    make = functools.partial(BUILDERS[name], source=source, data_dir=data, **keywords)
    with pytest.raises(DeepLabError) as error:
        prepare_dataset(make, reporter=Reporter())
    assert line == f"deeplab-jax: {error.value}"


@pytest.mark.parametrize(
    "case", ["empty polygon", "unknown image", "mask cut", "two annotations", "pixels"]
)
def test_skip_bad_leaves_damaged_annotations_out(case, source, tmp_path):
    name, spoil, pattern = SPOILT[case]
    WRITERS[name](source)
    spoil(source)
    prepared = prepare(tmp_path, f"--source={source}", "--skip_bad", dataset=name)
    assert "1 damaged examples left out" in prepared.printed
    assert re.search(pattern, prepared.printed)
    assert len(prepared.labels()) == len(drawings()) - (name != "coco")


def archive(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o120777 << 16
    return member


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([("../a.txt", b"")], "leads out of the archive"),
        ([("/a.txt", b"")], "leads out of the archive"),
        ([("b\\..\\..\\a.txt", b"")], "leads out of the archive"),
        ([(link("a.txt"), b"/etc/passwd")], "not a plain file"),
        (
            [("a.txt", bytes(2000)), ("b.txt", bytes(2000))],
            "unpacks to 4,000 bytes, but at most 3,000 bytes are allowed",
        ),
        ([("a", b""), ("a/b", b"")], "damaged"),
    ],
)
def test_unsafe_archives_are_refused(members, complaint, tmp_path):
    directory = tmp_path / "inside"
    directory.mkdir()
    with pytest.raises(DeepLabError, match=complaint):
        unpack_zip(archive(tmp_path / "a.zip", *members), directory, max_bytes=3000)
    assert [path.name for path in tmp_path.iterdir()] in (["inside", "a.zip"], ["a.zip", "inside"])


def test_archives_of_windows_may_contain_directories(tmp_path):
    members = [("images\\", b""), ("images\\a.txt", b"content"), ("empty/", b"")]
    unpack_zip(archive(tmp_path / "a.zip", *members), tmp_path)
    assert (tmp_path / "images" / "a.txt").read_bytes() == b"content"
    assert not (tmp_path / "empty").exists()


def test_names_in_archives_and_lists_may_contain_colons(source, tmp_path):
    unpack_zip(archive(tmp_path / "a.zip", ("12:30.txt", b"content")), tmp_path)
    assert (tmp_path / "12:30.txt").read_bytes() == b"content"
    with pytest.raises(DeepLabError, match="leads out of the archive"):
        unpack_zip(archive(tmp_path / "b.zip", ("C:\\a.txt", b"")), tmp_path)
    write_cvat(source)
    for folder in ("JPEGImages", "SegmentationClass"):
        (source / folder / "drawing_0.png").rename(source / folder / "12:30.png")
    path = source / "ImageSets/Segmentation/Train.txt"
    path.write_text(path.read_text().replace("drawing_0", "12:30"))
    builder = built("cvat", source, tmp_path)
    assert "12:30" in builder.image_ids()["train"]
    assert builder.problems() == []


def test_a_source_that_is_no_directory_and_no_archive(tmp_path):
    (tmp_path / "a.zip").write_text("no")
    with pytest.raises(DeepLabError, match=r"a\.zip: damaged, or not a zip archive"):
        unpacked(tmp_path / "a.zip", functools.partial(int))
    with pytest.raises(DeepLabError, match=r"b: no such directory"):
        unpacked(tmp_path / "b", functools.partial(int))


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("a/12:30.png", "a/12:30"),
        ("12:30.png", "12:30"),
        ("C:\\photos\\a.b.jpg", "photos/a.b"),
        ("/data/../x/a.png", "data/x/a"),
        ("http://host/a.png", "host/a"),
    ],
)
def test_the_id_of_an_image_is_its_path(file_name, name):
    assert image_name(file_name) == name
