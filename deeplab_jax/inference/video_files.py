"""Videos and cameras as files: reading frames, planning and writing results."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing, visible_files
from deeplab_jax.inference.files import check_targets
from deeplab_jax.visualize.class_maps import Color, class_map_picture

# What is a video by its name.
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclasses.dataclass(frozen=True)
class VideoJob:
    """One video, or camera, and what its prediction becomes.

    Attributes:
      source: path of the video, or the number of a camera.
      overlay: MP4 of the frames under the classes' colours.
      masks: directory of palette PNGs, one a frame: `000000.png` and so on.
    """

    source: Path | int
    overlay: Path
    masks: Path

    @property
    def image(self) -> Path:
        """What is read; a camera is no file."""
        return self.source if isinstance(self.source, Path) else Path(f"camera {self.source}")

    @property
    def targets(self) -> tuple[Path, ...]:
        """Outputs of a video."""
        return (self.overlay, self.masks)


def is_video(path: str | Path) -> bool:
    """Whether a path names a video, by its ending."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def plan_videos(
    paths: Sequence[str | Path], output: str | Path, *, overwrite: bool = False
) -> list[VideoJob]:
    """Decides what becomes of each video; reads and writes nothing.

    Args:
      paths: files, and folders whose videos are all taken, with those of their subfolders; what is
        neither a folder nor a video by its name is left to `plan_files`.
      output: directory of the predictions; paths below a given folder are kept below it.
      overwrite: replace targets that exist; of targets claimed twice the last wins.

    Raises:
      DeepLabError: a video is missing; a target would replace an input, exists or is claimed twice.
    """
    output, jobs = Path(output), []
    for path in map(Path, paths):
        if path.is_dir():
            inside = visible_files(path, VIDEO_SUFFIXES)
            # What an earlier run wrote is no input when the output lies inside the folder.
            own = output.resolve()
            jobs += [
                _job(video, output / video.relative_to(path))
                for video in inside
                if own == path.resolve() or own not in video.resolve().parents
            ]
        elif is_video(path):
            if not path.exists():
                raise DeepLabError(f"{path}: no such file or folder")
            jobs.append(_job(path, output / path.name))
    check_targets(jobs, overwrite)
    return jobs


def plan_camera(number: int, output: str | Path, *, overwrite: bool = False) -> VideoJob:
    """Decides what becomes of a camera's pictures.

    Raises:
      DeepLabError: a target exists.
    """
    job = _job(number, Path(output) / f"camera_{number}")
    check_targets([job], overwrite)
    return job


def _job(source: Path | int, target: Path) -> VideoJob:
    stem = target.with_suffix("")
    return VideoJob(
        source, stem.with_name(f"{stem.name}.mp4"), stem.with_name(f"{stem.name}_masks")
    )


# MPEG-4 part 2: the one codec that OpenCV's wheels can encode fast.
CODEC = "mp4v"
# Where a source tells no rate, as some cameras.
DEFAULT_RATE = 25.0
# Of the masks; the highest makes them a tenth smaller and takes ten times as long.
COMPRESSION = 1


class VideoSource:
    """Frames of a video or camera, one after the other.

    Attributes:
      rate: frames a second.
      size: (H, W) in pixels.
      count: of the frames, as the file tells; 0 where it does not.
      live: whether it is a camera, whose frames come whether asked for or not.
    """

    def __init__(self, source: Path | int) -> None:
        """Opens it.

        Raises:
          DeepLabError: it is no video or camera that can be read.
        """
        self.name = str(source) if isinstance(source, Path) else f"camera {source}"
        self._capture = cv2.VideoCapture(str(source) if isinstance(source, Path) else source)
        first = self._capture.read()[1] if self._capture.isOpened() else None
        if first is None:
            self._capture.release()
            raise DeepLabError(f"{self.name} is no video that can be read: it gives no frame")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if np.isfinite(rate) and 0 < rate < 1000 else DEFAULT_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if isinstance(source, Path) and 0 < count < 2**31 else 0
        self.size = first.shape[:2]
        self.live = not isinstance(source, Path)
        self._waiting = first

    def read(self) -> np.ndarray | None:
        """Returns the next frame, uint8 [H, W, 3] BGR; None after the last.

        Raises:
          DeepLabError: it has another size than the first.
        """
        frame, self._waiting = self._waiting, None
        if frame is None:
            frame = self._capture.read()[1]
        if frame is not None and frame.shape[:2] != self.size:
            raise DeepLabError(f"{self.name}: its frames change their size midway")
        return frame

    def close(self) -> None:
        """Lets go of the file or camera."""
        self._capture.release()


class VideoSink:
    """Takes frames and masks; see `writing`."""

    def __init__(
        self, path: Path, masks: Path, rate: float, size: tuple[int, int], palette: Sequence[Color]
    ) -> None:
        """Opens the files.

        Raises:
          DeepLabError: this OpenCV cannot write them.
        """
        self._size, self._masks, self._written = size, masks, 0
        self._palette = tuple(palette)
        codec = cv2.VideoWriter_fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(path), codec, rate, size[::-1])
        if not self._writer.isOpened():
            raise DeepLabError(f"this OpenCV cannot write {path.suffix} files ({CODEC})")

    def write(self, picture: np.ndarray, class_map: np.ndarray) -> None:
        """Takes a frame, uint8 [H, W, 3] BGR, and its class map, uint8 or uint16 [H, W]."""
        self._writer.write(picture)
        mask = class_map_picture(class_map, self._palette)
        mask.save(self._masks / f"{self._written:06}.png", compress_level=COMPRESSION)
        self._written += 1

    def close(self) -> None:
        """Ends the file."""
        self._writer.release()


@contextlib.contextmanager
def writing(
    job: VideoJob, rate: float, size: tuple[int, int], palette: Sequence[Color]
) -> Iterator[VideoSink]:
    """Gives what takes frames; both targets appear when the block ends well, or neither."""
    job.masks.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=job.masks.parent, prefix=".writing-") as folder,
        replacing(job.overlay) as temporary,
    ):
        masks = Path(folder) / job.masks.name
        masks.mkdir()
        sink = VideoSink(temporary, masks, rate, size, palette)
        try:
            yield sink
        finally:
            sink.close()
        if job.masks.is_dir():
            shutil.rmtree(job.masks)
        masks.rename(job.masks)
