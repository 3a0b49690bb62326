"""Predictions of videos, with steady class maps over time."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np

from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.padding import Size, size_step
from deeplab_jax.inference.predictor import Predictor
from deeplab_jax.inference.stages import Ahead, Behind
from deeplab_jax.inference.video_files import VideoJob, VideoSink, VideoSource, writing
from deeplab_jax.labels import label_dtype, void_label, void_of
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize.class_maps import Overlay


def averaged_over_time(
    previous: np.ndarray | None, probabilities: np.ndarray, keep: float
) -> np.ndarray:
    """Returns keep·previous + (1 − keep)·probabilities, an exponential average.

    A pixel that changes from one certain class to another follows after the smallest number of
    frames n with keep^n < ½: 4 frames at 0.8, 2 at 0.6, 1 below ½.

    Args:
      previous: the average up to the frame before, or None at the first frame.
      probabilities: of this frame, floating point [H, W, num_classes].
      keep: 0..1: 0 takes each frame by itself.

    Returns:
      [H, W, num_classes]; each pixel's sum stays 1.

    Raises:
      DeepLabError: `keep` is out of range, or the frame is of another size.
    """
    if not 0 <= keep < 1:
        raise DeepLabError(f"keep={keep} must be in [0, 1)")
    if previous is None:
        return probabilities
    if previous.shape != probabilities.shape:
        sizes = f"{list(probabilities.shape)} after {list(previous.shape)}"
        raise DeepLabError(f"frames must be of one size; got probabilities {sizes}")
    return probabilities + keep * (previous - probabilities)


def stable_class_maps(
    frames: Iterable[np.ndarray], keep: float = 0.6, cut: float = 0.5
) -> Iterator[np.ndarray]:
    """Yields the class map of each frame by the exponential average of its probabilities.

    Args:
      frames: probabilities, floating point [H, W, num_classes] each.
      keep: of the average, see `averaged_over_time`.
      cut: share of the pixels, 0..1. When more of them than this differ from the average's class
        the scene has been cut, and the average starts anew; 1: never.

    Yields:
      int32 [H, W].

    Raises:
      DeepLabError: `keep` is out of range, or the frames differ in size.
    """
    average, shown = None, None
    for probabilities in frames:
        seen, num_classes = probabilities.argmax(axis=-1), probabilities.shape[-1]
        comparable = shown is not None and seen.shape == shown.shape
        if comparable and changed_share(seen, shown, num_classes) > cut:
            average = None
        average = averaged_over_time(average, probabilities, keep)
        shown = average.argmax(axis=-1).astype(np.int32)
        yield shown


def changed_share(
    class_map: np.ndarray, other: np.ndarray, num_classes: int | None = None
) -> float:
    """Returns the share of the pixels, 0..1, whose class differs between two class maps.

    Args:
      class_map, other: integers [H, W]; pixels that are void in either are left out.
      num_classes: of the model; needed above 255 classes, where void is 65535 and 255 a class.
        None: 65535 is void in uint16 maps, 255 in all others.
    """
    voids = [
        void_of(one) if num_classes is None else void_label(num_classes)
        for one in (class_map, other)
    ]
    known = (class_map != voids[0]) & (other != voids[1])
    return float(np.count_nonzero(known & (class_map != other)) / max(np.count_nonzero(known), 1))


def class_areas(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the number of pixels of each class, int64 [num_classes]; void has none.

    Args:
      class_map: integers [H, W]; void is 255, or 65535 with more than 255 classes.
      num_classes: of the model.
    """
    known = class_map[class_map != void_label(num_classes)]
    return np.bincount(known, minlength=num_classes)


# Frames that the network sees together: of a video as many as keep two cores busy, of a camera one.
BATCH = 8
# Batches that wait between two stages.
WAITING = 2


@dataclasses.dataclass
class _Frame:
    """On its way: the picture as decoded, as the network sees it, and its classes.

    `picture` is uint8 [H, W, 3] BGR, `small` RGB; `read_at` is when it was decoded.
    """

    picture: np.ndarray
    small: np.ndarray
    read_at: float
    class_map: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """Cost of a video.

    Attributes:
      frames: number.
      rate: of the video, frames a second.
      seconds: from before the first frame is decoded to the end of the file; compiling is left out.
      network_size: (H, W) at which the network saw the frames.
      milliseconds: of each stage, a frame: median and 95th percentile. `decode` includes shrinking;
        `draw` enlarging, overlay, masks and encoding; `end to end` is from the decoded frame to the
        written one, waiting included.
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
            f"milliseconds a frame, median (95th percentile): {stages}"
        )


def network_size(predictor: Predictor, size: Size, limit: Size | None) -> Size:
    """Returns the size at which a network sees frames: as large as the limit allows.

    Frames are shrunk, never enlarged, to the nearest size that suits the network, so that nothing
    is padded; the sides' ratio changes by less than one output stride.

    Args:
      predictor: decides which sizes suit.
      size: (H, W) of the frames.
      limit: (H, W) that the result is to fit; None: the frames' own size.
    """
    if limit is None or all(length <= most for length, most in zip(size, limit, strict=True)):
        return size
    scale = min(most / length for most, length in zip(limit, size, strict=True))
    step = size_step(predictor.model.architecture, predictor.options.scales)
    plus = int(predictor.model.architecture.align_corners)
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
    """Writes the prediction of a video or camera: overlay and masks, whole or not at all.

    Class maps are enlarged to the frames' size without smoothing. Three threads work beside each
    other; of a camera frames are dropped when the network is slower, and Ctrl-C ends it well.

    Args:
      predictor: of the model.
      job: of `plan_videos` or `plan_camera`.
      reporter: receives the progress.
      limit: (H, W) that frames are shrunk to fit before the network; None: they are not.
      seconds: of the video, or of the camera's time, after which to stop; None: at its end.

    Raises:
      DeepLabError: the video cannot be read, or its frames change their size.
    """
    source = VideoSource(job.source)
    try:
        size = network_size(predictor, source.size, limit)
        # To pad every frame to the size of the training would be in vain.
        run = _Run(predictor.with_inference_size(None), source, size, seconds)
        run.compile()
        with writing(job, source.rate, source.size, predictor.palette) as sink:
            run.process(sink, reporter)
        report = run.report()
        if seconds is None and report.frames < source.count:
            reporter.warning(
                f"{source.name}: {report.frames} of its {source.count} frames could be decoded"
            )
        return report
    finally:
        source.close()


class _Run:
    """One video on its way through the three stages."""

    def __init__(
        self, predictor: Predictor, source: VideoSource, size: Size, seconds: float | None
    ) -> None:
        self._predictor, self._source, self._size = predictor, source, size
        self._batch = 1 if source.live else BATCH
        self._seconds = seconds
        self._overlay = Overlay(predictor.palette)
        self._times: dict[str, list[float]] = {
            name: [] for name in ("decode", "network", "draw", "end to end")
        }
        self._spent = 0.0

    def compile(self) -> None:
        """Compiles the network before the clock runs."""
        self._predictor.predict_batch([np.zeros((*self._size, 3), np.uint8)] * self._batch)

    def process(self, sink: VideoSink, reporter: Reporter) -> None:
        """Runs all frames through."""
        started = time.perf_counter()
        frames = Ahead(self._decoded(started), self._batch * WAITING, newest=self._source.live)
        drawing = Behind(lambda frame: self._draw(frame, sink), self._batch * WAITING)
        total = self._source.count
        if self._seconds is not None:
            total = min(total, round(self._seconds * self._source.rate)) or total
        tracked = reporter.track(frames, f"predicting {self._source.name}, frame", total or None)
        with frames, drawing:
            try:
                for members in _batches(tracked, self._batch):
                    self._classify(members)
                    for frame in members:
                        drawing.put(frame)
            except KeyboardInterrupt:
                # How a camera's recording ends.
                if not self._source.live:
                    raise
        self._spent = time.perf_counter() - started

    def report(self) -> VideoReport:
        """Returns what it took."""
        milliseconds = {
            name: tuple(1000 * float(np.percentile(values, share)) for share in (50, 95))
            for name, values in self._times.items()
        }
        frames = len(self._times["draw"])
        return VideoReport(frames, self._source.rate, self._spent, self._size, milliseconds)

    def _decoded(self, started: float) -> Iterator[_Frame]:
        while True:
            begun = time.perf_counter()
            if self._seconds is not None:
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

    def _classify(self, members: Sequence[_Frame]) -> None:
        begun = time.perf_counter()
        small = [frame.small for frame in members]
        # The last batch is filled up, so that nothing is compiled for it.
        small += small[-1:] * (self._batch - len(small))
        class_maps = self._predictor.predict_batch(small)
        dtype = label_dtype(len(self._predictor.class_names))
        for frame, class_map in zip(members, class_maps, strict=False):
            frame.class_map = class_map.astype(dtype)
        spent = (time.perf_counter() - begun) / len(members)
        self._times["network"] += [spent] * len(members)

    def _draw(self, frame: _Frame, sink: VideoSink) -> None:
        begun = time.perf_counter()
        class_map = frame.class_map
        if self._size != self._source.size:
            size = self._source.size[::-1]
            class_map = cv2.resize(class_map, size, interpolation=cv2.INTER_NEAREST_EXACT)
        sink.write(self._overlay.draw_bgr(frame.picture, class_map), class_map)
        now = time.perf_counter()
        self._times["draw"].append(now - begun)
        self._times["end to end"].append(now - frame.read_at)


def _batches(frames: Iterator[_Frame], batch: int) -> Iterator[list[_Frame]]:
    members: list[_Frame] = []
    for frame in frames:
        members.append(frame)
        if len(members) == batch:
            yield members
            members = []
    if members:
        yield members
