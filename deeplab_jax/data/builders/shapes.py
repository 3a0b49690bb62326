"""Builder of the built-in dataset `shapes`, which consists of synthetic images."""

from collections.abc import Sequence
from typing import Any

from deeplab_jax.data.builders.base import LoadedExample, SegmentationBuilder
from deeplab_jax.data.builders.findings import Problem
from deeplab_jax.data.codecs import encode_jpeg
from deeplab_jax.data.descriptors import SHAPES
from deeplab_jax.data.shapes import draw_scene
from deeplab_jax.errors import DeepLabError

SPLITS = ("train", "val")
# In smaller images, shapes have a radius of less than three pixels. Drawing might not end.
MIN_SIZE = 16


class Shapes(SegmentationBuilder):
    """Builder of synthetic square images that show shapes, and of their labels."""

    descriptor = SHAPES

    def __init__(
        self,
        *,
        num_train: int = 1600,
        num_val: int = 200,
        size: int = 96,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """Creates a builder.

        Args:
          num_train: number of images in the split train.
          num_val: number of images in the split val.
          size: height and width of the images in pixels, at least 16.
          seed: seed of the random images.
          **kwargs: arguments of `SegmentationBuilder`.

        Raises:
          DeepLabError: `size` is below 16.
        """
        if size < MIN_SIZE:
            raise DeepLabError(
                f"size={size} is too small for shapes; it must be at least {MIN_SIZE}"
            )
        self._num_images = {"train": num_train, "val": num_val}
        self._seed, self._size = seed, size
        super().__init__(**kwargs)

    def image_ids(self) -> dict[str, Sequence[str]]:
        return {
            split: [f"{index:05}" for index in range(number)]
            for split, number in self._num_images.items()
        }

    def problems(self) -> list[Problem]:
        return []

    def load(self, split: str, image_id: str) -> LoadedExample:
        image, label = draw_scene(self._seed, SPLITS.index(split), int(image_id), self._size)
        return LoadedExample(encode_jpeg(image), label)
