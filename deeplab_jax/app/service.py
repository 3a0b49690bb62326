"""Segmentation of one image per request, independent of the web framework."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import html
import io
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from deeplab_jax.data.crops import fitted
from deeplab_jax.data.image_layout import select_page
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.inference import ImageClassification, Prediction, Predictor, read_input
from deeplab_jax.inference.uncertainty import CONFIDENCE, ENTROPY, of_probabilities
from deeplab_jax.labels import label_dtype
from deeplab_jax.visualize import colorize, heat_map

# Inference size for models that do not define one.
DEFAULT_SIZE = (513, 513)
# Maximum number of models in memory. If more are requested, the least recently used is removed.
MODELS_KEPT = 2
# Uncertainties that require only the probabilities of one prediction.
OF_ONE_PASS = (CONFIDENCE, ENTROPY)
# Name of an uploaded file in errors.
NAME_OF_UPLOAD = "this file"
LOGGER = logging.getLogger("deeplab_jax")


class LoadingError(DeepLabError):
    """Raised if a model cannot be loaded.

    The message may contain paths of the server, so it is logged and not shown to visitors.
    """


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
      megabytes: maximum size of the image file, in megabytes (default: 10).
      megapixels: maximum number of pixels, in millions (default: 24).
      seconds: maximum time from the start of processing to the result, in seconds (default: 30).
      waiting: maximum number of requests in the queue (default: 64); further requests are rejected.
    """

    megabytes: float = 10
    megapixels: float = 24
    seconds: float = 30
    waiting: int = 64


@dataclasses.dataclass(frozen=True)
class Answer:
    """Result of a request.

    Attributes:
      overlay: uint8 [H, W, 3], the image with the class colors drawn over it.
      mask: uint8 [H, W, 3], the class colors alone.
      legend: HTML list of the classes in the image; class names are escaped.
      areas: {class name: fraction of the image's pixels, 0..1}, largest first.
      milliseconds: time spent in each stage: `decode`, `network` and `draw`.
    """

    overlay: np.ndarray
    mask: np.ndarray
    legend: str
    areas: dict[str, float]
    milliseconds: dict[str, float]


class SegmentationService:
    """Segments images with a fixed list of models; the network processes one image at a time."""

    def __init__(
        self,
        names: Sequence[str],
        load: Callable[[str], Predictor | ImageClassification],
        limits: Limits,
    ) -> None:
        """Creates the service; models are loaded when they are first used.

        Args:
          names: names of the available models.
          load: function that loads the model with a given name.
          limits: limits of one request.
        """
        self.names, self.limits = tuple(names), limits
        self._load = load
        self._loaded: collections.OrderedDict[str, Predictor] = collections.OrderedDict()
        # One worker: a network uses all cores.
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "network")
        self._lock = threading.Lock()

    def answer(self, image: Path, name: str) -> Answer:
        """Segments one image.

        Args:
          image: path of the encoded image.
          name: name of the model.

        Raises:
          DeepLabError: the model is unknown or cannot be loaded; the file is not an image, is
            damaged or is too large; or there is no result within the time limit. The message
            contains no path of the server.
        """
        with self._without_server_paths(name):
            ending = time.perf_counter() + self.limits.seconds
            pixels, predictor, decoding = self._read(image, name, ending)
            class_map, spent = self._in_turn(ending, self._segment, name, pixels)
            drawing = time.perf_counter()
            answer = _drawn(pixels, class_map, predictor)
            drawn = time.perf_counter()
        times = {"decode": decoding, "network": spent, "draw": drawn - drawing}
        rounded = {stage: round(1000 * seconds, 1) for stage, seconds in times.items()}
        return dataclasses.replace(answer, milliseconds=rounded)

    def uncertainty(self, image: Path, name: str, kind: str) -> np.ndarray:
        """Draws the uncertainty of the prediction at each pixel of an image.

        Args:
          image: path of the encoded image.
          name: name of the model.
          kind: `confidence` for 1 − the confidence, which is the largest probability; or `entropy`
            for the entropy of the probabilities, divided by its maximum.

        Returns:
          uint8 [H, W, 3] RGB. The uncertainty 0 is black, and 1 is light yellow.

        Raises:
          DeepLabError: `kind` is unknown; the model is unknown or cannot be loaded; the file is
            not an image, is damaged or is too large; or there is no result within the time limit.
            The message contains no path of the server.
        """
        check_name("uncertainty", kind, OF_ONE_PASS)
        with self._without_server_paths(name):
            ending = time.perf_counter() + self.limits.seconds
            pixels, _, _ = self._read(image, name, ending)
            values = self._in_turn(ending, self._uncertainty, name, pixels, kind)
        return heat_map(values)

    @contextlib.contextmanager
    def _without_server_paths(self, name: str) -> Iterator[None]:
        """Context manager that checks the name of a model, and removes server paths from errors."""
        check_name("model", name, self.names)
        try:
            yield
        except LoadingError as error:
            LOGGER.error("the model %s cannot be loaded: %s", name, error)
            raise DeepLabError(
                f"the model {name} cannot be loaded; the server's log contains the reason"
            ) from None

    def _read(self, image: Path, name: str, ending: float) -> tuple[np.ndarray, Predictor, float]:
        """Decodes an uploaded image, and loads the model `name` if it is not loaded yet.

        Args:
          image: path of the uploaded file.
          name: name of the model.
          ending: deadline for loading the model, as a value of `time.perf_counter()`.

        Returns:
          Decoded image, predictor of the model, and time that decoding took, in seconds.
        """
        encoded = self._checked(image)
        # A loaded model is used without queuing, since only its intensity range is needed here.
        predictor = self._loaded.get(name) or self._in_turn(ending, self._predictor, name)
        begun = time.perf_counter()
        pixels = read_input(predictor, encoded, name=NAME_OF_UPLOAD)
        return pixels, predictor, time.perf_counter() - begun

    def _checked(self, path: Path) -> bytes:
        """Returns the content of an uploaded file after checking file size and image size."""
        limits = self.limits
        if path.stat().st_size > limits.megabytes * 1e6:
            raise DeepLabError(
                f"the file is larger than {limits.megabytes:g} MB; send a smaller file"
            )
        # In a TIFF, smaller copies may precede the page that is read.
        encoded = select_page(path.read_bytes(), None, NAME_OF_UPLOAD)
        # Reads only the header; the image is not decoded here.
        try:
            pixels: float = math.prod(PIL.Image.open(io.BytesIO(encoded)).size)
        except PIL.Image.DecompressionBombError:
            pixels = math.inf
        except Exception:
            # `read_image` reports the error later.
            pixels = 0
        if pixels > limits.megapixels * 1e6:
            raise DeepLabError(
                f"the image has more than {limits.megapixels:g} million pixels; downsample it"
            )
        return encoded

    def _in_turn(self, ending: float, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a function in the worker thread, after the functions of earlier requests.

        Args:
          ending: deadline for the result, as a value of `time.perf_counter()`.
          function: function to run.
          *arguments: arguments of the function.

        Raises:
          DeepLabError: there is no result at the deadline.
        """
        future = self._worker.submit(function, *arguments)
        try:
            return future.result(ending - time.perf_counter())
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise DeepLabError(
                f"no result within {self.limits.seconds:g} s: the server is busy; try again later, "
                "or choose a smaller model"
            ) from None

    def warm_up(self, name: str) -> None:
        """Loads and compiles a model, so that the first request does not wait for it.

        Raises:
          LoadingError: the model cannot be loaded; the message contains the full reason.
          DeepLabError: the model classifies whole images, or does not take 8-bit RGB images.
        """
        self._worker.submit(self._segment, name, np.zeros((64, 64, 3), np.uint8)).result()

    def _segment(self, name: str, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        predictor = self._predictor(name)
        begun = time.perf_counter()
        small = fitted(pixels, predictor.inference_size)
        class_map = predictor(small).astype(label_dtype(len(predictor.class_names)))
        if small.shape != pixels.shape:
            size = pixels.shape[1::-1]
            class_map = cv2.resize(class_map, size, interpolation=cv2.INTER_NEAREST_EXACT)
        return class_map, time.perf_counter() - begun

    def _uncertainty(self, name: str, pixels: np.ndarray, kind: str) -> np.ndarray:
        predictor = self._predictor(name)
        small = fitted(pixels, predictor.inference_size)
        values = of_probabilities(kind, predictor.predict(small).probabilities)
        if small.shape != pixels.shape:
            values = cv2.resize(values, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return values

    def _predictor(self, name: str) -> Predictor:
        with self._lock:
            if name not in self._loaded:
                predictor = self._loaded_now(name)
                if not isinstance(predictor, Predictor):
                    raise DeepLabError(f"{name} classifies whole images; use a segmentation model")
                if not predictor.bands.are_rgb:
                    raise DeepLabError(
                        f"{name} requires images with {predictor.bands}, but the page accepts only "
                        "8-bit RGB; use the command deeplab-jax predict"
                    )
                size = predictor.inference_size or DEFAULT_SIZE
                # With a fixed inference size, all images share one compiled program.
                self._loaded[name] = predictor.with_inference_size(size)
                if len(self._loaded) > MODELS_KEPT:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]

    def _loaded_now(self, name: str) -> Predictor | ImageClassification:
        try:
            return self._load(name)
        except (DeepLabError, OSError) as error:
            raise LoadingError(str(error)) from error


def shown_names(references: Sequence[str]) -> dict[str, str]:
    """Returns the names under which models are shown to visitors, without server paths.

    A model directory is shown as the last component of its path. If two models would have the same
    name, parent directories are prepended until the names differ. If there are no further parent
    directories, a number is appended. The name of a published model is shown as it is.

    Args:
      references: paths of model directories or workdirs, or names of published models.

    Returns:
      {shown name: reference} in the order of `references`; a repeated reference is listed once.
    """
    parts = {reference: _path_parts(reference) for reference in references}
    names: dict[str, str] = {}
    for reference, own in parts.items():
        others = [other for key, other in parts.items() if key != reference]
        length = 1
        while length < len(own) and any(other[-length:] == own[-length:] for other in others):
            length += 1
        base = "/".join(own[-length:])
        numbered = (f"{base} ({number})" for number in itertools.count(2))
        free = (name for name in itertools.chain([base], numbered) if name not in names)
        names[next(free)] = reference
    return names


def _path_parts(reference: str) -> tuple[str, ...]:
    """Returns the components of the path of a model, without the root; never an empty tuple.

    The path is normalized. If it is then `.` or ends with `..`, it is made absolute, so that its
    last component is the name of a directory.
    """
    path = Path(os.path.normpath(reference))
    if path.name in ("", ".."):
        path = Path(os.path.abspath(reference))
    return tuple(part for part in path.parts if part != path.anchor) or ("model",)


def _drawn(pixels: np.ndarray, class_map: np.ndarray, predictor: Predictor) -> Answer:
    shown = Prediction(pixels, class_map, np.empty(0), predictor.class_names, predictor.palette)
    shares = shown.shares
    rows = "".join(
        f'<li><span style="background:rgb{color};width:1em;height:1em;display:inline-block;'
        f'border:1px solid #8888;margin-right:.5em"></span>'
        f"{html.escape(name)} {100 * shares[name]:.1f}&thinsp;%</li>"
        for name, color in shown.legend.items()
    )
    legend = f'<ul style="list-style:none;padding:0">{rows}</ul>'
    mask = colorize(class_map, predictor.palette)
    return Answer(shown.overlay, mask, legend, shares, {})
