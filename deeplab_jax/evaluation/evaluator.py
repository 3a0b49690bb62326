"""The confusion matrix of a split, as training asks for every few steps."""

from typing import Any

import jax
from jax.sharding import Mesh

from deeplab_jax.data import Dataset
from deeplab_jax.evaluation.split_pass import (
    DEFAULT_BATCH_SIZE,
    SplitPass,
    image_sizes,
    sum_over_hosts,
)
from deeplab_jax.inference.padding import Size
from deeplab_jax.labels import label_dtype
from deeplab_jax.metrics import ConfusionMatrix
from deeplab_jax.models import DeepLab
from deeplab_jax.reporter import Reporter


def _common_size(dataset: Dataset) -> Size | None:
    """Returns the (H, W) that all images have; None where they differ, or there is none."""
    sizes = set(map(tuple, image_sizes(dataset, len(dataset)).tolist()))
    return sizes.pop() if len(sizes) == 1 else None


class Evaluator:
    """Measures variables of one model on one split, again and again; compiled once."""

    def __init__(
        self,
        model: DeepLab,
        dataset: Dataset,
        *,
        size: Size | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        mesh: Mesh | None = None,
        workers: int = 0,
        limit: int | None = None,
    ) -> None:
        """Decides sizes; nothing runs yet.

        Args:
          model: whose variables are measured.
          dataset: any data set of the same classes.
          size: (H, W) to pad every image to, rounded up to what suits the network; default: where
            all images have one size, the smallest that suits the network, else what follows from
            each image's own size, see `canvas_size`.
          batch_size: of all hosts together; rounded up to a multiple of the mesh's `data`.
          mesh: devices to use, by default all.
          workers: processes that read ahead.
          limit: only the first so many images.

        Raises:
          DeepLabError: there is no image, or data set and model differ in their classes.
        """

        self._num_classes = model.architecture.num_classes
        dtype = label_dtype(self._num_classes)

        def classify(class_map: jax.Array, logits: jax.Array) -> jax.Array:
            del logits
            return class_map.astype(dtype)

        self._split = SplitPass(
            model,
            dataset,
            classify,
            size=size,
            minimum_size=None if size else _common_size(dataset),
            batch_size=batch_size,
            mesh=mesh,
            workers=workers,
            limit=limit,
        )

    @property
    def size(self) -> Size | None:
        """(H, W) that every image is padded to; None where images are padded to several sizes."""
        sizes = set(self._split.sizes)
        return sizes.pop() if len(sizes) == 1 else None

    def run(self, variables: Any, reporter: Reporter | None = None) -> ConfusionMatrix:
        """Returns the confusion matrix of the whole split, the same on every host.

        Args:
          variables: of the model, on any devices.
          reporter: hears of the batches; by default nobody does.

        Raises:
          DeepLabError: an image is damaged or larger than the size.
        """
        total = ConfusionMatrix.empty(self._num_classes)
        for batch, class_map in self._split.run(variables, reporter or Reporter()):
            counts = ConfusionMatrix.from_labels(batch["label"], class_map, self._num_classes)
            total = total.merge(counts)
        return ConfusionMatrix(sum_over_hosts(total.counts))
