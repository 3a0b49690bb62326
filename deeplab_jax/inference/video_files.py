"""Plans output files for videos and cameras, reads frames, and writes results."""

import contextlib
import dataclasses
import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path, replacing, replacing_directory
from deeplab_jax.inference.files import Job, find_inputs, plan
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize.class_maps import Color, class_map_picture

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".webm", ".wmv"),
)


@dataclasses.dataclass(frozen=True)
class VideoJob(Job):
    """A video or camera, and the files to write for its prediction.

    Attributes:
      source: path of the video, or index of a camera.
      overlay: path of an MP4, which shows the frames blended with the colors of the classes.
      masks: directory of the class maps, one palette PNG of class indices per frame, with the names
        `000000.png`, `000001.png`, …
    """

    source: Path | int
    overlay: Path
    masks: Path

    @property
    def image(self) -> Path:
        """Name of the input in messages: the path of the video, or `camera N` for a camera.

        The attribute is called `image` as in jobs of images.
        """
        return self.source if isinstance(self.source, Path) else Path(f"camera {self.source}")


def is_video(path: str | Path) -> bool:
    """Returns whether a path has the suffix of a video file and is not a directory."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES and not as_path(path).is_dir()


def plan_videos(
    paths: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[VideoJob]:
    """Determines the files to write for each video; reads and writes no file.

    Args:
      paths: video files, and folders that are searched recursively; other files are ignored.
      output: directory for the predictions. The result of a video in a subfolder of a searched
        folder is written to the same subfolder of `output`.
      overwrite: whether to replace existing files. If it is True and two videos have the same
        output file, the result of the second video is kept.

    Raises:
      DeepLabError: a path is in a bucket, a video does not exist, `output` is a file, or an output
        file is an input file or is inside the directory of the masks of another video. Without
        `overwrite`, also: an output file exists, or two videos have the same output file.
    """
    given = [path for path in paths if as_path(path).is_dir() or is_video(path)]
    videos = plan(find_inputs(given, output, VIDEO_SUFFIXES), _job, overwrite)
    check_masks(videos, videos)
    return videos


def check_masks(videos: Sequence[VideoJob], jobs: Sequence[Job]) -> None:
    """Checks that no output file is inside the directory of the masks of a video.

    Writing the masks of a video replaces the whole directory, so such a file would be lost.

    Args:
      videos: results of `plan_videos` and `plan_camera`, in one list.
      jobs: jobs whose output files are checked.

    Raises:
      DeepLabError: an output file is inside such a directory.
    """
    owners = {job.masks: job for job in videos}
    for target in (target for job in jobs for target in job.targets):
        for folder in owners.keys() & set(target.parents):
            video = owners[folder].image
            raise DeepLabError(
                f"{target} would be inside {folder}, where the masks of {video} are written; "
                f"predict {video} in a separate run, with another --output"
            )


def plan_camera(number: int, output: str | Path, *, overwrite: bool = False) -> VideoJob:
    """Determines the files to write for a camera.

    Args:
      number: index of the camera.
      output: directory for the predictions.
      overwrite: whether to replace existing files.

    Raises:
      DeepLabError: an output file exists, and `overwrite` is False.
    """
    (job,) = plan([(number, as_path(output) / f"camera_{number}")], _job, overwrite)
    return job


def _job(source: Path | int, target: Path) -> VideoJob:
    overlay, masks = (target.with_name(f"{target.stem}{ending}") for ending in (".mp4", "_masks"))
    return VideoJob(source, overlay, masks)


# MPEG-4 part 2 is the only codec that OpenCV's wheels encode fast.
CODEC = "mp4v"
# Maximum denominator of the duration of a frame, in seconds, in MPEG-4 part 2. For a rate with
# three decimals, OpenCV writes the duration 1000 / (1000 · rate).
MAX_TICKS = 65535
# Frame rate, in frames per second, of sources that do not report theirs, such as some cameras.
DEFAULT_RATE = 25.0
# PNG compression level of the masks. The highest level takes ten times as long for files that are
# 10 % smaller.
COMPRESSION = 1


class VideoSource:
    """Reads the frames of a video or camera.

    Attributes:
      rate: frame rate, in frames per second.
      size: (H, W) of the frames in pixels.
      count: number of frames according to the file; 0: unknown.
      live: whether the source is a camera.
    """

    def __init__(self, source: Path | int) -> None:
        """Opens the source and reads its first frame.

        Args:
          source: path of a video, or index of a camera.

        Raises:
          DeepLabError: no frame can be read.
        """
        self.name = str(source) if isinstance(source, Path) else f"camera {source}"
        self._capture = cv2.VideoCapture(_file_name(source) if isinstance(source, Path) else source)
        first = self._capture.read()[1] if self._capture.isOpened() else None
        if first is None:
            self._capture.release()
            raise DeepLabError(
                f"{self.name} cannot be read as a video: OpenCV finds no frame; give a video such "
                "as an MP4 with H.264, or the index of a connected camera"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if np.isfinite(rate) and 0 < rate < 1000 else DEFAULT_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if isinstance(source, Path) and 0 < count < 2**31 else 0
        self.size = first.shape[:2]
        self.live = not isinstance(source, Path)
        self._waiting: np.ndarray | None = first

    def read(self) -> np.ndarray | None:
        """Returns the next frame, uint8 [H, W, 3] BGR; None after the last one.

        Raises:
          DeepLabError: the size of the frame differs from that of the first frame.
        """
        frame, self._waiting = self._waiting, None
        if frame is None:
            frame = self._capture.read()[1]
        if frame is not None and frame.shape[:2] != self.size:
            raise DeepLabError(
                f"{self.name}: the frames have different sizes; convert the video to one size"
            )
        return frame

    def close(self) -> None:
        """Releases the file or camera."""
        self._capture.release()


# Function that writes a frame, uint8 [H, W, 3] BGR, and its class map, uint8 or uint16 [H, W].
Write = Callable[[np.ndarray, np.ndarray], None]


@contextlib.contextmanager
def writing(
    job: VideoJob,
    rate: float,
    size: tuple[int, int],
    palette: Sequence[Color],
    reporter: Reporter,
) -> Iterator[Write]:
    """Opens the output files of a video, and yields a function that writes one frame.

    The function takes a frame of the overlay and its class map, and writes both to temporary files.
    If the `with` block succeeds, the temporary files are renamed to the names in `job`. Otherwise,
    they are deleted.

    OpenCV writes only videos with even height and width. An odd side is therefore extended by a
    copy of the last row or column. The header of the overlay states the original size, so that
    players crop the frames to it.

    Frames of a camera are dropped while the network is busy. The overlay of a camera therefore gets
    the mean rate at which frames are written, so that it plays as fast as it was recorded.

    Args:
      job: files to write.
      rate: frame rate of the source, in frames per second.
      size: (H, W) of the frames.
      palette: RGB 0..255 of each class.
      reporter: receives a warning if the size in the header could not be changed.

    Raises:
      DeepLabError: the installed OpenCV cannot write the video.
    """
    with (
        # Without permission to overwrite, `plan_videos` has refused an existing directory.
        replacing_directory(job.masks, overwrite=True) as masks,
        replacing(job.overlay) as temporary,
    ):
        bottom, right = (length % 2 for length in size)
        even = (size[0] + bottom, size[1] + right)
        writer = _opened_writer(temporary, rate, even)
        times: list[float] = []

        def write(picture: np.ndarray, class_map: np.ndarray) -> None:
            if even != size:
                picture = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            writer.write(picture)
            mask = class_map_picture(class_map, palette)
            mask.save(masks / f"{len(times):06}.png", compress_level=COMPRESSION)
            times.append(time.monotonic())

        try:
            yield write
        finally:
            writer.release()
        if even != size and not _state_size(temporary, even, size):
            reporter.warning(
                f"{job.overlay} has {even[0]}x{even[1]} pixels (height x width) instead of "
                f"{size[0]}x{size[1]}, since the installed OpenCV writes even sizes only; the "
                "masks have the size of the frames"
            )
        if not isinstance(job.source, Path) and times and times[-1] > times[0]:
            _state_rate(temporary, rate * (times[-1] - times[0]) / (len(times) - 1))


def _file_name(path: Path) -> str:
    """Returns the absolute path, because FFmpeg interprets `12:` in `12:30.mp4` as a protocol."""
    return str(path.absolute())


def _opened_writer(path: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    # Exact rates such as 119.873 require more than MAX_TICKS.
    rate = round(rate, next(digits for digits in (3, 2, 1) if rate * 10**digits <= MAX_TICKS))
    writer = cv2.VideoWriter(_file_name(path), cv2.VideoWriter.fourcc(*CODEC), rate, size[::-1])
    if not writer.isOpened():
        raise DeepLabError(
            f"the installed OpenCV cannot write {path.suffix} files with the codec {CODEC}; "
            "install opencv-python-headless from PyPI"
        )
    return writer


# Start code of the header that states the frame size in MPEG-4 part 2, and the maximum length of
# that header in bytes.
LAYER_START, LAYER_BYTES = b"\0\0\1\x20", 40
# Offsets of the width and height in two boxes of an MP4, in bytes from the name of the box; see
# ISO/IEC 14496-12.
SAMPLE_SIZE, TRACK_SIZE = 28, 80


def _state_size(path: Path, encoded: tuple[int, int], size: tuple[int, int]) -> bool:
    """Changes the frame size (H, W) in the headers of an MP4 from `encoded` to a smaller `size`.

    MPEG-4 part 2 encodes frames in blocks of 16 x 16 pixels, and decoders crop frames to the size
    in the header.

    Returns:
      True if the size was changed. False if the headers with the size `encoded` were not found;
      the file is then unchanged.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        boxes = content.rfind(b"moov")
        sample = content.find(b"mp4v", content.find(b"stsd", boxes)) + SAMPLE_SIZE
        track = content.find(b"tkhd", boxes) + TRACK_SIZE
        layer = content.find(LAYER_START, sample)
        patches = {
            sample: (_sides(encoded, 2, 0), _sides(size, 2, 0)),
            # Fixed-point numbers with 16 bits before and after the point.
            track: (_sides(encoded, 4, 16), _sides(size, 4, 16)),
        }
        # Width and height have 13 bits each, between marker bits, and may start at any bit.
        header = int.from_bytes(content[layer : layer + LAYER_BYTES])
        old, new = ((1 << 28) | (w << 15) | (1 << 14) | (h << 1) | 1 for h, w in (encoded, size))
        shifts = [
            shift for shift in range(8 * LAYER_BYTES - 29) if (header >> shift) % (1 << 29) == old
        ]
        found = [content[at : at + len(before)] == before for at, (before, _) in patches.items()]
        if min(boxes, layer) < 0 or len(shifts) != 1 or not all(found):
            return False
        for at, (_, after) in patches.items():
            content[at : at + len(after)] = after
        header ^= (old ^ new) << shifts[0]
        content[layer : layer + LAYER_BYTES] = header.to_bytes(LAYER_BYTES)
    return True


# Offsets of 32-bit numbers in boxes of an MP4, in bytes from the name of the box, which precedes
# its version: the time scale of the frames in ticks per second, and durations in other units. The
# offsets hold for version 0.
TIME_SCALE, DURATIONS = (b"mdhd", 16), ((b"mvhd", 20), (b"tkhd", 24), (b"elst", 12))


def _state_rate(path: Path, longer: float) -> bool:
    """Multiplies the duration of all frames in the headers of an MP4 by the factor `longer`.

    Returns:
      True if the duration was changed. False if the headers have another form, or a number would
      exceed 32 bits; the file is then unchanged.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        boxes = content.rfind(b"moov")
        starts = [content.find(name, boxes) for name, _ in (TIME_SCALE, *DURATIONS)]
        if min(boxes, *starts) < 0 or any(content[start + 4] for start in starts):
            return False
        scale, *durations = (
            start + offset
            for start, (_, offset) in zip(starts, (TIME_SCALE, *DURATIONS), strict=True)
        )
        before = int.from_bytes(content[scale : scale + 4])
        after = max(1, round(before / longer))
        patches = {scale: after}
        for at in durations:
            # Players omit frames after the stated duration, so it is rounded up.
            patches[at] = -(-int.from_bytes(content[at : at + 4]) * before // after)
        if max(patches.values()) >= 2**32:
            return False
        for at, value in patches.items():
            content[at : at + 4] = value.to_bytes(4)
    return True


def _sides(size: tuple[int, int], num_bytes: int, fraction: int) -> bytes:
    """Encodes width, then height, as big-endian fixed-point numbers of `num_bytes` bytes each.

    `fraction` is the number of fractional bits. `size` is (H, W).
    """
    return b"".join((side << fraction).to_bytes(num_bytes) for side in size[::-1])
