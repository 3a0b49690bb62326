"""A model that takes images of any size and gives class maps of the same size."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.data import MEAN_PIXEL
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference.padding import Size, padded_size
from deeplab_jax.inference.prediction import Prediction
from deeplab_jax.models import DeepLab
from deeplab_jax.visualize.class_maps import Color


class Predictor:
    """Whole image, one scale: pads to a size that suits the network, predicts, crops back.

    Nothing is resized. The network is compiled once for each padded size; images no larger than
    `inference_size` share one.

    Attributes:
      model: the network.
      variables: its parameters and batch statistics, on the device.
      class_names: of the logits, in order.
      palette: RGB 0..255, one a class.
      inference_size: (H, W) that smaller images are padded to, or None.
      source: where the model came from, for reports.
    """

    def __init__(
        self,
        model: DeepLab,
        variables: Any,
        class_names: Sequence[str],
        palette: Sequence[Color],
        inference_size: Size | None = None,
        source: str = "",
    ) -> None:
        self.model = model
        self.variables = jax.device_put(variables)
        self.class_names = tuple(class_names)
        self.palette = tuple(tuple(color) for color in palette)
        self.inference_size = inference_size
        self.source = source
        self._classify = jax.jit(self._class_map)
        self._rank = jax.jit(self._class_map_and_probabilities)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Returns the class of every pixel.

        Args:
          image: uint8 [H, W, 3], RGB.

        Returns:
          int32 [H, W].

        Raises:
          DeepLabError: the image has another shape or dtype.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the class maps of images of any sizes.

        Images that are padded to one size go through the network together; the result of each is
        that of the image alone.

        Args:
          images: uint8 [H, W, 3] each.

        Returns:
          int32 [H, W] each, in the same order.

        Raises:
          DeepLabError: an image has another shape or dtype.
        """
        groups: dict[Size, list[int]] = {}
        for position, image in enumerate(images):
            groups.setdefault(self._padded_size(image), []).append(position)
        class_maps: dict[int, np.ndarray] = {}
        for size, positions in groups.items():
            batch = np.stack([_pad(images[position], size) for position in positions])
            results = np.asarray(self._classify(self.variables, batch))
            for position, result in zip(positions, results, strict=True):
                height, width = images[position].shape[:2]
                class_maps[position] = result[:height, :width]
        return [class_maps[position] for position in range(len(images))]

    def predict(self, image: np.ndarray) -> Prediction:
        """Returns class map, probabilities and legend of one image; shows itself in a notebook.

        Args:
          image: uint8 [H, W, 3], RGB.

        Raises:
          DeepLabError: the image has another shape or dtype.
        """
        batch = _pad(image, self._padded_size(image))[None]
        height, width = image.shape[:2]
        class_map, probabilities = jax.device_get(self._rank(self.variables, batch))
        return Prediction(
            image,
            class_map[0, :height, :width],
            probabilities[0, :height, :width],
            self.class_names,
            self.palette,
        )

    def _class_map_and_probabilities(
        self, variables: Any, image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = self.model.apply(variables, image, train=False)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32), jax.nn.softmax(logits, axis=-1)

    def _class_map(self, variables: Any, image: jax.Array) -> jax.Array:
        return self._class_map_and_probabilities(variables, image)[0]

    def _padded_size(self, image: np.ndarray) -> Size:
        _check_image(image)
        return padded_size(self.model, image.shape[:2], self.inference_size)


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        given = getattr(image, "dtype", type(image).__name__)
        raise DeepLabError(f"an image is a NumPy array of uint8, RGB 0..255; got {given}")
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise DeepLabError(f"an image is [height, width, 3], not empty; got {list(image.shape)}")


def _pad(image: np.ndarray, size: Size) -> np.ndarray:
    """Returns the image padded with the mean pixel at the bottom and right."""
    padded = np.full((*size, 3), MEAN_PIXEL, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded
