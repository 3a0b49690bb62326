"""Finds photographs that may not be redistributed inside pictures, by local features.

A picture is a screenshot, a sheet or a plot that may show a photograph scaled down, mirrored, or
under the colors of a class map. Each photograph is described once by SIFT features at two reduced
sizes (Lowe, IJCV 2004). The features of a picture vote for photographs through an approximate
nearest-neighbor index; the photographs with the most votes are matched one by one with the ratio
test, and one is found where enough matches agree on one affine map (RANSAC).
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

# Long sides in pixels at which photographs are described, and the features kept at each.
SIZES = {320: 150, 140: 120}
# Photographs that are matched one by one for each picture.
CANDIDATES = 30
RATIO = 0.8
# Matches that must agree on one map. Chance gives up to 5, a photograph 160 pixels wide some 50.
MIN_INLIERS = 12
# Of FLANN's index.
KDTREE, TREES, CHECKS, NEIGHBORS = 1, 4, 48, 3
FEATURES_OF_PICTURE = 6000


@dataclasses.dataclass(frozen=True)
class Features:
    """Local features: points [N, 2] in pixels and RootSIFT descriptors float32 [N, 128]."""

    points: np.ndarray
    descriptors: np.ndarray


def describe(image: np.ndarray, number: int) -> Features:
    """Returns the strongest features of a grey image, uint8 [H, W]."""
    points, descriptors = cv2.SIFT_create(number, contrastThreshold=0.02).detectAndCompute(
        image, None
    )
    if descriptors is None:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    descriptors = np.sqrt(descriptors / (descriptors.sum(axis=1, keepdims=True) + 1e-7))
    return Features(np.float32([point.pt for point in points]), np.float32(descriptors))


def read_grey(path: Path) -> np.ndarray:
    """Returns an image as uint8 [H, W]; transparent pixels are laid on white."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image.ndim == 3 and image.shape[2] == 4:
        alpha = image[..., 3:] / 255
        image = (image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def grey(image: np.ndarray) -> np.ndarray:
    """Returns an image uint8 [H, W, 3], RGB, as uint8 [H, W]."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def reduced(image: np.ndarray, long_side: int) -> np.ndarray:
    """Returns an image, downsampled to a long side of at most this many pixels."""
    factor = long_side / max(image.shape[:2])
    if factor >= 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


class Photographs:
    """The features of photographs, with an index over all of them."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Describes the photographs, in about 25 ms each."""
        self.paths = list(paths)
        self._features: list[list[Features]] = []
        for path in self.paths:
            grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            scaled = [(reduced(grey, size), number) for size, number in SIZES.items()]
            self._features.append([describe(image, number) for image, number in scaled])
        counts = [sum(len(one.points) for one in sizes) for sizes in self._features]
        self._owners = np.repeat(np.arange(len(counts)), counts)
        stacked = np.concatenate([one.descriptors for sizes in self._features for one in sizes])
        self._index = cv2.flann_Index(stacked, {"algorithm": KDTREE, "trees": TREES})

    def inliers(self, picture: np.ndarray) -> dict[Path, int]:
        """Returns candidates that a grey picture may show, with the number of agreeing matches."""
        found: dict[Path, int] = {}
        for image in (picture, picture[:, ::-1]):
            features = describe(np.ascontiguousarray(image), FEATURES_OF_PICTURE)
            if len(features.points) < MIN_INLIERS:
                continue
            for photograph in self._candidates(features):
                number = max(agreeing(one, features) for one in self._features[photograph])
                path = self.paths[photograph]
                found[path] = max(number, found.get(path, 0))
        return found

    def shown_in(self, picture: np.ndarray) -> list[Path]:
        """Returns the photographs that a grey picture shows, uint8 [H, W]."""
        return [path for path, number in self.inliers(picture).items() if number >= MIN_INLIERS]

    def _candidates(self, features: Features) -> np.ndarray:
        nearest, _ = self._index.knnSearch(
            features.descriptors, NEIGHBORS, params={"checks": CHECKS}
        )
        votes = np.bincount(self._owners[nearest].ravel(), minlength=len(self.paths))
        return np.argsort(-votes, kind="stable")[:CANDIDATES]


def agreeing(photograph: Features, picture: Features) -> int:
    """Returns the number of matches that agree on one affine map of a photograph into a picture."""
    if len(photograph.points) < 3:
        return 0
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(photograph.descriptors, picture.descriptors, k=2)
    good = [first for first, second in pairs if first.distance < RATIO * second.distance]
    if len(good) < 3:
        return 0
    source = photograph.points[[match.queryIdx for match in good]]
    target = picture.points[[match.trainIdx for match in good]]
    affine, mask = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=3, maxIters=2000
    )
    if affine is None or not np.isfinite(affine).all() or not plausible(affine):
        return 0
    # Several features of one point are one.
    return len(np.unique(np.rint(target[mask.ravel() == 1]), axis=0))


def plausible(affine: np.ndarray) -> bool:
    """Returns whether an affine map [2, 3] keeps most of a picture's shape."""
    scales = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(scales[1] > 0.1 and scales[0] < 3 * scales[1] and scales[0] < 8)
