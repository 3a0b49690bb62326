"""Every picture in the repository has a source, and none shows a photograph of the shared data."""

import pathlib
import shutil
import subprocess
import tomllib

import cv2
import numpy as np
import pytest
from shared_photographs import MIN_INLIERS, Photographs, grey, read_grey, reduced

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = ROOT / "docs" / "images" / "SOURCES.toml"
SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf"}
# What is looked through where there is no git, as in an unpacked archive.
FOLDERS = ("docs", "experiments", "deeplab_jax", "configs", "tests")
PAGE = (800, 1400)


def pictures() -> list[str]:
    """Returns the paths of all pictures of the repository, from its root."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    else:
        paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
        names = [path.relative_to(ROOT).as_posix() for path in paths]
    return sorted(name for name in names if pathlib.Path(name).suffix.lower() in SUFFIXES)


def sources() -> dict[str, dict[str, str]]:
    return tomllib.loads(SOURCES.read_text("utf-8"))


@pytest.fixture(scope="module")
def photographs(shared):
    """The photographs of CamVid and VOC that may not be redistributed, some 1,000."""
    data = shared / "data"
    paths = [data / "camvid" / split for split in ("train", "val")]
    found = [path for folder in paths for path in sorted(folder.glob("*.png"))]
    found += sorted((data / "voc2012" / "JPEGImages").glob("*.jpg"))
    assert len(found) > 900
    return Photographs(found)


def page_with(embedded: np.ndarray, seed: int) -> np.ndarray:
    """Returns a grey screenshot of a page: text, boxes, lines, and a picture somewhere."""
    random = np.random.default_rng(seed)
    page = np.full(PAGE, 250, np.uint8)
    for number in range(40):
        left, top = int(random.integers(0, 1200)), int(random.integers(20, 780))
        text = f"{random.choice(['road', 'sky', 'Segment', 'mean IoU'])} {number}.{seed} %"
        font, ink = cv2.FONT_HERSHEY_SIMPLEX, int(random.integers(0, 120))
        cv2.putText(page, text, (left, top), font, 0.5, ink, 1, cv2.LINE_AA)
        cv2.rectangle(page, (left, top), (left + 150, top + 40), 200)
    height, width = embedded.shape
    top, left = (int(random.integers(0, limit)) for limit in np.subtract(PAGE, embedded.shape))
    page[top : top + height, left : left + width] = embedded
    return page


def test_every_picture_is_listed_with_a_script_that_exists():
    listed = sources()
    assert sorted(listed) == pictures()
    for name, entry in listed.items():
        assert set(entry) == {"script", "command", "source"}, name
        assert all(entry.values()), name
        assert (ROOT / entry["script"]).is_file(), (name, entry["script"])


def test_commands_call_their_script():
    """By path or as a module; packaged scripts are called through the program or make."""
    for name, entry in sources().items():
        script, command = entry["script"], entry["command"]
        module = script.removesuffix(".py").replace("/", ".")
        packaged = script.startswith("deeplab_jax/")
        assert packaged or script in command or module in command, name


@pytest.mark.slow
def test_no_picture_shows_a_shared_photograph(photographs):
    shown = {name: photographs.shown_in(read_grey(ROOT / name)) for name in raster_pictures()}
    assert not {name: paths for name, paths in shown.items() if paths}


def raster_pictures() -> list[str]:
    names = pictures()
    # A vector picture is not looked into: its source must do.
    assert not [name for name in names if name.endswith((".svg", ".pdf"))]
    return names


@pytest.mark.slow
@pytest.mark.parametrize("long_side", [160, 200, 300, 400])
def test_a_shared_photograph_on_a_page_is_found(photographs, long_side):
    """Each of eight photographs, also half covered by the color of a class, and mirrored."""
    random = np.random.default_rng(long_side)
    chosen = random.choice(len(photographs.paths), 8, replace=False)
    for seed, index in enumerate(chosen):
        path = photographs.paths[index]
        small = reduced(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), long_side)
        if seed % 3 == 1:
            small = small[:, ::-1]
        if seed % 3 == 2:
            small = (0.5 * small + 40).astype(np.uint8)
        found = photographs.shown_in(page_with(small, seed))
        # Frames of a drive look alike, so that a neighbor may be found in place of one.
        same_set = [other for other in found if other.parent.parent == path.parent.parent]
        assert path in found or ("camvid" in str(path) and same_set), (path, long_side)


@pytest.mark.slow
def test_permitted_pictures_pass(photographs, shared):
    skimage = pytest.importorskip("skimage")
    allowed = [grey(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee")]
    golden = sorted((shared / "data" / "golden").glob("*.[jp][pn]g"))
    assert golden
    allowed += map(read_grey, golden)
    for seed, image in enumerate(allowed):
        for shown in (image, page_with(reduced(image, 300), seed)):
            agreeing = photographs.inliers(shown)
            # A wide margin: chance makes a handful of matches agree.
            assert max(agreeing.values(), default=0) <= MIN_INLIERS / 2
