"""Predicts videos and camera images, and computes class maps that are stable over time."""

import collections
import contextlib
import dataclasses
import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.padding import Size, size_grid
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.inference.tiles import groups
from deeplab_jax.inference.video_files import VideoJob, VideoSource, Write, writing
from deeplab_jax.labels import label_dtype, void_label, void_of
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize.class_maps import Overlay


def averaged_over_time(
    previous: np.ndarray | None, probabilities: np.ndarray, keep: float
) -> np.ndarray:
    """Returns the exponential moving average keep·previous + (1 − keep)·probabilities.

    Averaging delays changes of the most probable class. If a pixel has probability 1 for one class
    and, from some frame on, probability 1 for another class, the average changes to the new class
    in the n-th frame that has the new class, where n is the smallest number with keep^n < ½.
    For keep = 0.8, n is 4; for keep = 0.6, n is 2; for keep below ½, n is 1 (no delay).

    Args:
      previous: average up to the previous frame, or None at the first frame.
      probabilities: probabilities of this frame, floating point [H, W, num_classes].
      keep: weight of the previous average, in [0, 1); 0 disables averaging.

    Returns:
      [H, W, num_classes]; sums to 1 over the classes.

    Raises:
      DeepLabError: `keep` is not in [0, 1), or the shapes of the two arrays differ.
    """
    if not 0 <= keep < 1:
        raise DeepLabError(f"keep={keep}, the weight of the previous average, must be in [0, 1)")
    if previous is None:
        return probabilities
    if previous.shape != probabilities.shape:
        shapes = f"{list(probabilities.shape)} after {list(previous.shape)}"
        raise DeepLabError(f"all probabilities must have the same shape; got {shapes}")
    return probabilities + keep * (previous - probabilities)


def stable_class_maps(
    frames: Iterable[np.ndarray], keep: float = 0.6, cut: float = 0.5
) -> Iterator[np.ndarray]:
    """Yields a class map per frame, from an exponential moving average of the probabilities.

    Args:
      frames: probabilities, floating point [H, W, num_classes] each.
      keep: weight of the previous average, see `averaged_over_time`.
      cut: fraction of pixels, 0..1. If the class changes in more than this fraction of the pixels,
        the frame starts a new scene and a new average; 1 disables this.

    Yields:
      int32 [H, W].

    Raises:
      DeepLabError: `keep` is not in [0, 1), or the frames differ in size.
    """
    average: np.ndarray | None = None
    shown: np.ndarray | None = None
    for probabilities in frames:
        seen, num_classes = probabilities.argmax(axis=-1), probabilities.shape[-1]
        before = shown if shown is not None and seen.shape == shown.shape else None
        if before is not None and changed_share(seen, before, num_classes) > cut:
            average = None
        average = averaged_over_time(average, probabilities, keep)
        shown = average.argmax(axis=-1).astype(np.int32)
        yield shown


def changed_share(
    class_map: np.ndarray, other: np.ndarray, num_classes: int | None = None
) -> float:
    """Returns the fraction of the pixels, 0..1, whose class differs between two class maps.

    Args:
      class_map, other: integers [H, W]; only pixels that are void in neither map are compared.
      num_classes: number of classes of the model, which determines the void value; None: void is
        65535 in uint16 maps, and 255 in all others. With more than 255 classes, 255 is a class, so
        maps of other dtypes than uint16 require `num_classes`.
    """
    voids = [
        void_of(one) if num_classes is None else void_label(num_classes)
        for one in (class_map, other)
    ]
    known = (class_map != voids[0]) & (other != voids[1])
    differ, compared = known & (class_map != other), int(np.count_nonzero(known))
    return float(np.count_nonzero(differ) / max(compared, 1))


def class_areas(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the number of pixels of each class, int64 [num_classes]; void is not counted.

    Args:
      class_map: integers [H, W]; void is 255, or 65535 with more than 255 classes.
      num_classes: number of classes of the model.
    """
    known = class_map[class_map != void_label(num_classes)]
    return np.bincount(known, minlength=num_classes)


Item = TypeVar("Item")

# Seconds between two checks of a waiting thread whether it should end.
LOOK_INTERVAL = 0.1


@contextlib.contextmanager
def produced_ahead(
    items: Iterator[Item], waiting: int, *, newest: bool = False
) -> Iterator[Iterator[Item]]:
    """Yields an iterator over items that a thread computes in advance.

    The thread puts the items into a queue, from which the yielded iterator takes them. An error in
    `items` is raised by the yielded iterator. Leaving the `with` block ends the thread.

    Args:
      items: iterator that the thread runs.
      waiting: maximum number of items in the queue; the thread waits while the queue is full.
      newest: whether the queue keeps only the newest item: the thread then discards the items in
        the queue before it adds the next item.
    """
    ready: queue.Queue[Item | None] = queue.Queue(waiting)
    ended = threading.Event()

    def put(item: Item | None) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=LOOK_INTERVAL)
                return

    def produce() -> None:
        try:
            for item in items:
                with contextlib.suppress(queue.Empty):
                    while newest:
                        ready.get_nowait()
                put(item)
                if ended.is_set():
                    return
        finally:
            put(None)

    def requested(production: Future[None]) -> Iterator[Item]:
        yield from iter(ready.get, None)
        production.result()

    with ThreadPoolExecutor(1) as thread:
        try:
            yield requested(thread.submit(produce))
        finally:
            ended.set()


# Number of frames per batch of a video. Frames of a camera are predicted one at a time.
BATCH = 8
# Maximum number of batches in the queue between two stages.
WAITING = 2


@dataclasses.dataclass
class _Frame:
    """Decoded frame, and the input of the network that is made from it.

    Attributes:
      picture: decoded frame, uint8 [H, W, 3] BGR.
      small: input of the network, uint8 [h, w, 3] RGB.
      read_at: time at which decoding ended, in seconds of `time.perf_counter`.
    """

    picture: np.ndarray
    small: np.ndarray
    read_at: float


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """Timing of one video.

    Attributes:
      frames: number of frames.
      rate: frame rate of the video, in frames per second; for a camera, the mean rate at which
        frames were written, since frames are dropped while the network is busy.
      seconds: wall time of decoding, predicting and writing the frames. It excludes compiling the
        network before the first frame, and closing the output files after the last frame.
      network_size: (H, W) of the network's input.
      milliseconds: median and 95th percentile of the time per frame, for each stage. `decode`
        includes downsampling. `draw` includes upsampling, overlay, masks and encoding. `end to end`
        is the time from the end of decoding a frame to the end of writing it, including waiting.
    """

    frames: int
    rate: float
    seconds: float
    network_size: Size
    milliseconds: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        height, width = self.network_size
        stages = ", ".join(
            f"{name} {median:.1f} ({late:.1f})"
            for name, (median, late) in self.milliseconds.items()
        )
        return (
            f"{self.frames} frames ({self.frames / self.rate:.1f} s) in {self.seconds:.1f} s, "
            f"{self.frames / self.seconds:.1f} frames/s, network at {height}×{width}; "
            f"milliseconds per frame, median (95th percentile): {stages}"
        )


def network_size(predictor: Predictor, size: Size, limit: Size | None) -> Size:
    """Returns the (H, W) to which the frames of a video are resized for the network.

    Frames within the limit keep their size. Larger frames are scaled down to the limit, with
    unchanged aspect ratio, and each scaled side is rounded to the nearest side within the limit
    that the network accepts without padding. If no such side is within the limit, the result is the
    smallest side that the network accepts.

    Args:
      predictor: model that determines the legal sizes.
      size: (H, W) of the frames.
      limit: maximum (H, W) of the result; None keeps the size of the frames.
    """
    if limit is None or all(length <= most for length, most in zip(size, limit, strict=True)):
        return size
    scale = min(most / length for most, length in zip(limit, size, strict=True))
    step, plus = size_grid(predictor.model.architecture, predictor.options.scales)
    height, width = (
        max(1, min(round((length * scale - plus) / step), (most - plus) // step)) * step + plus
        for length, most in zip(size, limit, strict=True)
    )
    return height, width


def predict_video(
    predictor: Predictor,
    job: VideoJob,
    reporter: Reporter,
    limit: Size | None = None,
    seconds: float | None = None,
) -> VideoReport:
    """Predicts a video or the images of a camera, and writes an overlay video and masks.

    If an error occurs, nothing is written. Class maps are upsampled to the size of the frames by
    nearest neighbor. Three threads decode frames, apply the network, and draw the results. Frames
    of a camera are dropped while the network is busy, and Ctrl-C ends the recording.

    Args:
      predictor: model to apply.
      job: result of `plan_videos` or `plan_camera`.
      reporter: receives progress events.
      limit: maximum (H, W) of the network's input; None keeps the size of the frames.
      seconds: maximum number of seconds to read, in video time for a file and in wall time for a
        camera; None: no limit. At least one frame is read.

    Raises:
      DeepLabError: the video cannot be read, the size of its frames changes, the input of the model
        is not RGB, `seconds` is not a finite number above 0, or a recording is ended before its
        first frame.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise DeepLabError(f"seconds={seconds} must be None, or a finite number above 0")
    if not predictor.bands.are_rgb:
        raise DeepLabError(
            f"the model takes {predictor.bands}, but videos have three bands of uint8 (RGB); give "
            "a model for RGB"
        )
    with contextlib.closing(VideoSource(job.source)) as source:
        size = network_size(predictor, source.size, limit)
        # Without an inference size, frames are not padded, which saves time.
        run = _Run(predictor.with_inference_size(None), source, size, seconds)
        run.compile()
        with writing(job, source.rate, source.size, predictor.palette, reporter) as write:
            run.process(write, reporter)
        report = run.report()
        if seconds is None and report.frames < source.count:
            reporter.warning(
                f"{source.name}: only {report.frames} of {source.count} frames could be decoded"
            )
        return report


class _Run:
    """Prediction of one video in three stages: decoding, network and drawing."""

    def __init__(
        self, predictor: Predictor, source: VideoSource, size: Size, seconds: float | None
    ) -> None:
        self._predictor, self._source, self._size = predictor, source, size
        self._batch = 1 if source.live else BATCH
        self._seconds = seconds
        self._overlay = Overlay([(blue, green, red) for red, green, blue in predictor.palette])
        self._times: dict[str, list[float]] = {
            name: [] for name in ("decode", "network", "draw", "end to end")
        }
        self._spent = 0.0

    def compile(self) -> None:
        """Compiles the network before timing starts."""
        self._predictor.predict_batch([np.zeros((*self._size, 3), np.uint8)] * self._batch)

    def process(self, write: Write, reporter: Reporter) -> None:
        """Predicts and writes all frames."""
        started = time.perf_counter()
        name, waiting = f"predicting {self._source.name}, frame", self._batch * WAITING
        # For a camera, Ctrl-C ends the recording without an error.
        ending = (KeyboardInterrupt,) if self._source.live else ()
        total = self._source.count
        if self._seconds is not None:
            total = min(total, round(self._seconds * self._source.rate)) or total
        drawn: collections.deque[Future[None]] = collections.deque()
        with (
            produced_ahead(self._decoded(started), waiting, newest=self._source.live) as frames,
            ThreadPoolExecutor(1) as drawing,
        ):
            with contextlib.suppress(*ending):
                for members in groups(reporter.track(frames, name, total or None), self._batch):
                    class_maps = self._classify(members)
                    for frame, class_map in zip(members, class_maps, strict=True):
                        drawn.append(drawing.submit(self._draw, frame, class_map, write))
                        # Waiting for earlier frames limits memory, and raises their errors.
                        if len(drawn) > waiting:
                            drawn[0].result()
                            drawn.popleft()
            for remaining in drawn:
                remaining.result()
        self._spent = time.perf_counter() - started
        if not self._times["draw"]:
            raise DeepLabError(
                f"{self._source.name}: the recording was stopped before its first frame, so "
                "nothing was written; start it again"
            )

    def report(self) -> VideoReport:
        """Returns the number of frames, and the time that each stage took per frame."""
        milliseconds = {
            name: (1000 * float(np.percentile(values, 50)), 1000 * float(np.percentile(values, 95)))
            for name, values in self._times.items()
        }
        frames = len(self._times["draw"])
        rate = frames / self._spent if self._source.live else self._source.rate
        return VideoReport(frames, rate, self._spent, self._size, milliseconds)

    def _decoded(self, started: float) -> Iterator[_Frame]:
        while True:
            begun = time.perf_counter()
            if self._seconds is not None and self._times["decode"]:
                decoded = len(self._times["decode"]) / self._source.rate
                if (begun - started if self._source.live else decoded) >= self._seconds:
                    return
            picture = self._source.read()
            if picture is None:
                return
            small = picture
            if self._size != self._source.size:
                small = cv2.resize(picture, self._size[::-1], interpolation=cv2.INTER_AREA)
            small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
            now = time.perf_counter()
            self._times["decode"].append(now - begun)
            yield _Frame(picture, small, now)

    def _classify(self, members: Sequence[_Frame]) -> list[np.ndarray]:
        begun = time.perf_counter()
        small = [frame.small for frame in members]
        # The last batch is filled with copies of the last frame, so that all batches have one size.
        small += small[-1:] * (self._batch - len(small))
        class_maps = self._predictor.predict_batch(small)
        dtype = label_dtype(len(self._predictor.class_names))
        found = [class_map.astype(dtype) for class_map in class_maps[: len(members)]]
        spent = (time.perf_counter() - begun) / len(members)
        self._times["network"] += [spent] * len(members)
        return found

    def _draw(self, frame: _Frame, class_map: np.ndarray, write: Write) -> None:
        begun = time.perf_counter()
        if self._size != self._source.size:
            size = self._source.size[::-1]
            class_map = cv2.resize(class_map, size, interpolation=cv2.INTER_NEAREST_EXACT)
        write(self._overlay.draw(frame.picture, class_map), class_map)
        now = time.perf_counter()
        self._times["draw"].append(now - begun)
        self._times["end to end"].append(now - frame.read_at)
