"""Decoding and encoding of videos by OpenCV, and the masks beside them."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import replacing
from deeplab_jax.inference.video_jobs import VideoJob
from deeplab_jax.visualize.class_maps import Color, class_map_picture

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
