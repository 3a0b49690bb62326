"""One way through a split: every image through the network exactly once."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from deeplab_jax.data import Batch, Dataset, evaluation_batches, evaluation_order
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.inference.forward import Finish, forward_pass
from deeplab_jax.inference.padding import Size, canvas_size, padded_size
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import (
    data_share,
    data_size,
    make_mesh,
    place,
    put_batch,
    replicated,
    rows_of_this_process,
    wait_for_hosts,
)
from deeplab_jax.reporter import Reporter

DEFAULT_BATCH_SIZE = 8


class SplitPass:
    """Pads every image as a predictor does and sends it through the network, whole.

    Attributes:
      dataset: what is gone through.
      sizes: (H, W) that each image is padded to; few of them differ.
      batch_size: of all hosts together, a multiple of the mesh's `data`.
      num_images: how many are gone through.
    """

    def __init__(
        self,
        model: DeepLab,
        dataset: Dataset,
        finish: Finish,
        *,
        options: InferenceOptions | None = None,
        size: Size | None = None,
        minimum_size: Size | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        mesh: Mesh | None = None,
        workers: int = 0,
        limit: int | None = None,
    ) -> None:
        """Decides sizes; nothing runs yet.

        Args:
          model: decides the legal sizes and the number of classes.
          dataset: any data set of the same classes.
          finish: see `forward_pass`.
          options: scales and flip are looked at; default: the image as it is.
          size: (H, W) to pad every image to, rounded up to what suits the network; default: what
            follows from the image's own size, see `canvas_size`.
          minimum_size: (H, W) that smaller images are padded to, if any.
          batch_size: of all hosts together; rounded up to a multiple of the mesh's `data`.
          mesh: devices to use, by default all.
          workers: processes that read ahead.
          limit: only the first so many images.

        Raises:
          DeepLabError: there is no image, or data set and model differ in their classes.
        """
        options = options or InferenceOptions()
        self.dataset = dataset
        self.num_images = count_images(model, dataset, limit, batch_size)
        self.sizes = self._padded_sizes(model, options, size, minimum_size)
        self._fill = model.architecture.mean_pixel
        self.mesh = make_mesh() if mesh is None else mesh
        parts = data_size(self.mesh)
        self.batch_size = -(-batch_size // parts) * parts
        self._workers = workers
        self._forward = forward_pass(model, options, finish, self.mesh)

    def _padded_sizes(
        self, model: DeepLab, options: InferenceOptions, size: Size | None, minimum: Size | None
    ) -> list[Size]:
        if size is not None:
            return [padded_size(model, size, scales=options.scales)] * self.num_images
        own = image_sizes(self.dataset, self.num_images).tolist()
        return [canvas_size(model, tuple(one), minimum, options.scales) for one in own]

    def run(self, variables: Any, reporter: Reporter) -> Iterator[tuple[Batch, Any]]:
        """Yields this host's part of each batch with what the function made of it.

        Every host runs the same number of steps. Of hosts that split the rows of the same images
        one alone yields them. The device is always one batch ahead of what is yielded.

        Args:
          variables: of the model, on any devices.
          reporter: hears of the batches.

        Yields:
          The batch of `evaluation_batches`, and the function's result as NumPy arrays.
        """
        variables = place(variables, replicated(self.mesh))
        share = data_share(self.mesh)
        batches = evaluation_batches(
            self.dataset,
            self.sizes[: self.num_images],
            batch_size=self.batch_size,
            fill=self._fill,
            host=share.index,
            num_hosts=share.count,
            workers=self._workers,
            limit=self.num_images,
        )
        total = len(self._order()) // self.batch_size
        waiting: list[tuple[Batch, Any]] = []
        for batch in reporter.track(batches, "evaluating, batch", total):
            image = put_batch({"image": batch["image"]}, self.mesh)["image"]
            waiting.append((batch, self._forward(variables, image)))
            if len(waiting) > 1:
                yield from self._arrived(*waiting.pop(0))
        yield from self._arrived(*waiting.pop())

    def own_positions(self) -> np.ndarray:
        """Returns the positions in the data set of the images that this host yields, ascending."""
        share = data_share(self.mesh)
        if not share.counts:
            return np.arange(0)
        positions = np.array([position for position, _ in self._order()])
        own = positions.reshape(-1, share.count, self.batch_size // share.count)[:, share.index]
        return np.sort(own[own >= 0])

    def _order(self) -> list[tuple[int, Size]]:
        return evaluation_order(np.array(self.sizes[: self.num_images]), self.batch_size)

    def _arrived(self, batch: Batch, output: Any) -> Iterator[tuple[Batch, Any]]:
        arrived = jax.tree.map(rows_of_this_process, output)
        if data_share(self.mesh).counts:
            yield batch, arrived


def image_sizes(dataset: Dataset, count: int) -> np.ndarray:
    """Returns (height, width) of the first images, int [count, 2].

    A data set that records no sizes is read once for them.
    """
    if hasattr(dataset, "image_sizes"):
        return dataset.image_sizes()[:count]
    return np.array([dataset[index]["label"].shape for index in range(count)])


def sum_over_hosts(counts: np.ndarray) -> np.ndarray:
    """Returns the sum of every host's int64 array of one shape, on all of them."""
    if jax.process_count() == 1:
        return counts
    wait_for_hosts("counts")
    # As bytes, because JAX would narrow int64 to int32.
    gathered = multihost_utils.process_allgather(np.ascontiguousarray(counts).view(np.uint8))
    return np.ascontiguousarray(gathered).view(np.int64).sum(axis=0)


def count_images(model: DeepLab, dataset: Dataset, limit: int | None, batch_size: int) -> int:
    """Returns how many images there are to go through.

    Raises:
      DeepLabError: none, or data set and model differ in their classes.
    """
    outputs, classes = model.architecture.num_classes, dataset.descriptor.num_classes
    if outputs != classes:
        raise DeepLabError(
            f"the model has {outputs} classes, the data set {dataset.name} has {classes}; "
            "evaluate on data with the model's classes, or fine-tune the model"
        )
    num_images = len(dataset) if limit is None else min(limit, len(dataset))
    if num_images < 1 or batch_size < 1:
        raise DeepLabError(
            f"nothing to evaluate: {len(dataset)} images in {dataset.name}/{dataset.split}, "
            f"limit {limit}, batch size {batch_size}; each must be at least 1"
        )
    return num_images
