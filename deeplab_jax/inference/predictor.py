"""Predictor: applies a model to images of any size."""

import base64
import copy
import dataclasses
import functools
import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from deeplab_jax.checkpointing import check_temperature
from deeplab_jax.data.crops import pad
from deeplab_jax.data.descriptors import Bands
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.forward import (
    Finish,
    FoldedNetwork,
    Network,
    at_temperature,
    only_class_map,
    only_logits,
)
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.inference.padding import Size, canvas_size, check_image
from deeplab_jax.inference.refinement import find_parameters, refine
from deeplab_jax.inference.tiles import Place, Tiling, run_tile_rows, run_tiles
from deeplab_jax.models import Architecture, DeepLab
from deeplab_jax.models.output_stride import at_output_stride
from deeplab_jax.visualize import legend_strip, overlay, png_bytes
from deeplab_jax.visualize.class_maps import Color

# Minimum width of pictures in notebooks, in pixels. Narrower pictures are padded, so that their
# legend fits.
MIN_PICTURE_WIDTH = 240


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction for one image, which notebooks display as a picture.

    Attributes:
      image: input image, [H, W, C]; uint8 [H, W, 3] is RGB.
      class_map: most probable class of each pixel, int32 [H, W].
      probabilities: float32 [H, W, num_classes]; sums to 1 over the classes.
      class_names: name of each class.
      palette: color of each class, RGB 0..255.
    """

    image: np.ndarray
    class_map: np.ndarray
    probabilities: np.ndarray
    class_names: tuple[str, ...]
    palette: tuple[Color, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the pixels that each class covers, 0..1, largest first.

        The keys are the names of the classes that occur. Pixels whose value is not a class index,
        such as void, belong to no class.
        """
        num_classes = len(self.class_names)
        counts = np.bincount(self.class_map.ravel(), minlength=num_classes)[:num_classes]
        order = np.argsort(-counts, kind="stable")
        return {
            self.class_names[index]: counts[index] / self.class_map.size
            for index in order[: np.count_nonzero(counts)].tolist()
        }

    @property
    def legend(self) -> dict[str, Color]:
        """Color of each class that occurs, in the order of `shares`."""
        colors = dict(zip(self.class_names, self.palette, strict=True))
        return {name: colors[name] for name in self.shares}

    @property
    def overlay(self) -> np.ndarray:
        """Image with the class colors drawn over it, uint8 [H, W, 3]; see `visualize.overlay`."""
        return overlay(self.image, self.class_map, self.palette)

    def _repr_png_(self) -> bytes:
        picture = self.overlay
        missing = max(0, MIN_PICTURE_WIDTH - picture.shape[1])
        picture = np.pad(picture, ((0, 0), (0, missing), (0, 0)), constant_values=255)
        return png_bytes(np.concatenate([picture, legend_strip(self.legend, picture.shape[1])]))

    def _repr_html_(self) -> str:
        encoded = base64.b64encode(png_bytes(self.overlay)).decode("ascii")
        entries = " &nbsp; ".join(
            f'<span style="color:rgb{self.legend[name]}">&#9632;</span> '
            f"{html.escape(name)} {100 * share:.1f}&thinsp;%"
            for name, share in self.shares.items()
        )
        return f'<img src="data:image/png;base64,{encoded}" alt="overlay"><br>{entries}'


class Predictor:
    """Predicts class maps of images of any size.

    Images are padded, the network is applied, and the result is cropped. Batch normalization is
    folded into the convolutions. By default, a whole image is predicted at one scale.
    `with_options` returns a predictor with other options. Images are not resized, except by the
    scales of the options. The network is compiled for each new scale or shape of a padded batch.
    All images not larger than `inference_size` are padded to one size. All tiles have one size.

    Attributes:
      model: the network, at the output stride of the options.
      variables: parameters and batch statistics of `model`, with the values given to the
        constructor; batch normalization is not folded.
      network: the folded model with its variables on the device, or the result of `make_network`.
        `with_options` keeps this object unless the output stride changes.
      class_names: names of the classes, in the order of the logits.
      palette: color of each class, RGB 0..255.
      inference_size: (H, W) to which smaller images are padded, or None. Tiles are not padded to
        this size.
      source: name or path of the model, for reports.
      options: inference options.
      intensity_range: pair of the pixel values that become 0 and 255 when an image file with more
        than 8 bits is read; None: the range of each image, extended to include 0.
      bands: number and dtype of the bands of an image, and the bands to read from files.
      temperature: divisor of the logits before the softmax (default: 1). Class maps and the results
        of a CRF do not depend on it.
      tiling: division of images into tiles, or None.
      crf: parameters of the CRF, or None.
      fixed_size: the only (H, W) in pixels that the network accepts, or None.
    """

    fixed_size: Size | None = None

    def __init__(
        self,
        model: DeepLab,
        variables: Any,
        class_names: Sequence[str],
        palette: Sequence[Color],
        inference_size: Size | None = None,
        source: str = "",
        options: InferenceOptions | None = None,
        intensity_range: tuple[float, float] | None = None,
        chosen_bands: tuple[int, ...] | None = None,
        temperature: float = 1.0,
        make_network: Callable[[DeepLab, Any], Network] = FoldedNetwork,
    ) -> None:
        """Prepares the network, which is compiled when the first image is predicted.

        Args:
          model: the network, at the output stride of training.
          variables: parameters and batch statistics of `model`.
          chosen_bands: numbers, from 1, of the bands to read from image files; None: RGB, or all
            bands if the network does not take RGB.
          make_network: function from a model and its variables to the network to call.

        The other arguments are described under the attributes of the class.

        Raises:
          DeepLabError: the network does not support the options.
        """
        self._trained = model, variables
        self._make_network = make_network
        self._networks: dict[Architecture, Network] = {}
        self.class_names = tuple(class_names)
        self.palette = tuple((red, green, blue) for red, green, blue in palette)
        self.source = source
        self.intensity_range = intensity_range
        self.temperature = temperature
        architecture = model.architecture
        self.bands = Bands(architecture.in_channels, architecture.image_dtype, chosen_bands)
        self._apply(options or InferenceOptions(), inference_size)

    def _apply(self, options: InferenceOptions, inference_size: Size | None) -> None:
        self.options, self.inference_size = options, inference_size
        self.model, self.variables = at_output_stride(*self._trained, options.output_stride)
        architecture = self.model.architecture
        if architecture not in self._networks:
            self._networks[architecture] = self._make_network(self.model, self.variables)
        self.network = self._networks[architecture]
        self._fill = architecture.mean_pixel
        self.tiling = Tiling.of(self.model, options) if options.tile else None
        self.crf = find_parameters(options, architecture)
        forward = functools.partial(self.network.forward, options)
        self._classify = forward(only_class_map)
        self._rank = forward(self.calibrated(_class_map_and_probabilities))
        self._fuse = forward(only_logits)

    def calibrated(self, finish: Finish) -> Finish:
        """Returns a function that divides the logits by the temperature, and calls `finish`."""
        return at_temperature(finish, self.temperature)

    def with_temperature(self, temperature: float) -> "Predictor":
        """Returns a predictor of the same model with another temperature of the probabilities.

        Args:
          temperature: finite divisor of the logits, above 0.

        Raises:
          DeepLabError: the temperature is invalid.
        """
        check_temperature(temperature)
        changed = copy.copy(self)
        changed.temperature = temperature
        changed._apply(self.options, self.inference_size)
        return changed

    def with_options(self, options: InferenceOptions) -> "Predictor":
        """Returns a predictor of the same model with other options.

        Raises:
          DeepLabError: the network does not support the options.
        """
        if options == self.options:
            return self
        return self._changed(self.inference_size, options)

    def with_inference_size(self, size: Size | None) -> "Predictor":
        """Returns a predictor of the same model with another inference size.

        Args:
          size: (H, W) in pixels to which smaller images are padded; None: each image is padded to
            one of a few sizes that the network accepts, see `canvas_size`.
        """
        return self._changed(size, self.options)

    def with_networks(self, make_network: Callable[[DeepLab, Any], Network]) -> "Predictor":
        """Returns a predictor of the same model that gets its networks from `make_network`.

        Args:
          make_network: function from a model and its variables to the attribute `network`, such as
            a file that another runtime executes. It is called once for each output stride.
        """
        changed = copy.copy(self)
        changed._make_network, changed._networks = make_network, {}
        changed._apply(self.options, self.inference_size)
        return changed

    def _changed(self, inference_size: Size | None, options: InferenceOptions) -> "Predictor":
        changed = copy.copy(self)
        changed._apply(options, inference_size)
        return changed

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the class of every pixel.

        With tiles, an RGB image and its class map take 7 bytes of memory per pixel, in addition to
        the memory of the network. With a CRF, host memory also contains up to three float32 arrays
        [H, W, num_classes].

        Args:
          image: uint8 [H, W, 3], RGB; or other bands, see the attribute `bands`.

        Returns:
          int32 [H, W].

        Raises:
          DeepLabError: `image` does not have the shape or the dtype that the model takes.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the class maps of images of any sizes.

        Images that are padded to the same size form one batch. Each result is the same as if the
        image were predicted alone.

        Args:
          images: uint8 [H, W, 3] each, RGB; or other bands, see the attribute `bands`.

        Returns:
          int32 [H, W] each, in the same order.

        Raises:
          DeepLabError: an image does not have the shape or the dtype that the model takes.
        """
        if self.crf:
            return [self.predict(image).class_map for image in images]
        return self._results(self._classify, images)

    @property
    def takes_rows(self) -> bool:
        """True if `class_map_rows` can be called.

        This requires tiles, no CRF, and a model for 8-bit RGB images without `chosen_bands`.
        """
        return self.tiling is not None and self.crf is None and self.bands.are_pictures

    def class_map_rows(
        self,
        size: Size,
        read: Callable[[int, int], np.ndarray],
        track: Callable[[Sequence[Place]], Iterable[Place]] = iter,
    ) -> Iterator[np.ndarray]:
        """Predicts an image that is read by rows, and returns an iterator over its class map.

        In addition to the network, memory contains one row of tiles of the image and of the result.

        Args:
          size: (H, W) of the image.
          read: function that returns the rows [first, last) of the image, uint8 [rows, W, 3], RGB.
          track: function that takes the positions of all tiles and yields them unchanged. It may
            report progress.

        Returns:
          Iterator over blocks of successive rows, int32 [rows, W]. Together, they are the class map
          of the whole image.

        Raises:
          DeepLabError: `takes_rows` is False.
        """
        if self.tiling is None or not self.takes_rows:
            raise DeepLabError(
                "class_map_rows requires inference in tiles, no CRF, and a model for RGB images "
                "without chosen bands; set tile, and omit crf"
            )
        return run_tile_rows(self.tiling, self._classify, size, read, track)

    def predict(self, image: np.ndarray) -> Prediction:
        """Returns the class map and the probabilities of one image.

        Args:
          image: uint8 [H, W, 3], RGB; or other bands, see the attribute `bands`.

        Raises:
          DeepLabError: `image` does not have the shape or the dtype that the model takes.
        """
        if self.crf:
            probabilities = refine(self.logits(image), image, self.crf)
            class_map = probabilities.argmax(axis=-1).astype(np.int32)
        else:
            ((class_map, probabilities),) = self._results(self._rank, [image])
        return Prediction(image, class_map, probabilities, self.class_names, self.palette)

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Returns the logits of one image, fused over scales and flips, before any CRF.

        If the probabilities at several scales or flips are averaged, the logits are the logarithms
        of the average.

        Args:
          image: uint8 [H, W, 3], RGB; or other bands, see the attribute `bands`.

        Returns:
          float32 [H, W, num_classes].

        Raises:
          DeepLabError: `image` does not have the shape or the dtype that the model takes.
        """
        return self._results(self._fuse, [image])[0]

    def check_size(self, size: Size) -> None:
        """Checks that an image of `size` (H, W) is not too large for the network.

        Raises:
          DeepLabError: the image is larger than `fixed_size`, and tiles are not used.
        """

    def _canvas(self, size: Size) -> Size:
        """Returns the (H, W) to which an image of `size` (H, W) is padded."""
        scales = self.options.scales
        return canvas_size(self.model, size, self.inference_size, scales=scales)

    def _results(
        self, forward: Callable[[np.ndarray], Any], images: np.ndarray | Sequence[np.ndarray]
    ) -> list[Any]:
        """Applies a function to images, and returns its result for each of them, [H, W, …].

        The images are cut into tiles, or padded and batched by padded size.

        Args:
          forward: function from images [N, h, w, C] to arrays [N, h, w, …].
          images: [H, W, C] each.
        """
        for image in images:
            check_image(image, self.bands)
        if self.tiling:
            return [run_tiles(self.tiling, forward, image) for image in images]
        groups: dict[Size, list[int]] = {}
        for position, image in enumerate(images):
            groups.setdefault(self._canvas(image.shape[:2]), []).append(position)
        results: dict[int, Any] = {}
        for size, positions in groups.items():
            batch = np.stack([pad(images[position], size, self._fill) for position in positions])
            outputs = jax.device_get(forward(batch))
            for row, position in enumerate(positions):
                results[position] = _result_of_one(outputs, row, images[position].shape[:2])
        return [results[position] for position in range(len(images))]


def _result_of_one(outputs: Any, row: int, size: tuple[int, ...]) -> Any:
    """Returns the result of the image with index `row` in a batch, cropped to `size` (H, W)."""
    # A view would be read-only, and would keep the results of the whole batch in memory.
    inside = row, slice(size[0]), slice(size[1])
    return jax.tree.map(lambda output: output[inside].copy(), outputs)


def _class_map_and_probabilities(
    class_map: jax.Array, logits: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return class_map, jax.nn.softmax(logits, axis=-1)
