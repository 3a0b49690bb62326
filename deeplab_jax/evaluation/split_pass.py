"""One way through a split: every image through the network exactly once."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from deeplab_jax.data import Batch, Dataset, evaluation_batches
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.inference.fusion import Finish, forward_pass
from deeplab_jax.inference.padding import Size, padded_size
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import batch_sharding, make_mesh, put_batch, replicated
from deeplab_jax.reporter import Reporter

DEFAULT_BATCH_SIZE = 8


class SplitPass:
    """Pads every image to one size and sends it through the network, whole.

    Attributes:
      dataset: what is gone through.
      size: (H, W) that every image is padded to.
      batch_size: of all hosts together, a multiple of the devices.
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
          finish: logits [N, H, W, num_classes] -> arrays of N rows; is compiled.
          options: scales and flip are looked at; default: the image as it is.
          size: (H, W) to pad to, rounded up to what suits the network; default: of the largest
            image, at least `minimum_size`.
          minimum_size: (H, W).
          batch_size: of all hosts together; rounded up to a multiple of the devices.
          mesh: devices to use, by default all.
          workers: processes that read ahead.
          limit: only the first so many images.

        Raises:
          DeepLabError: there is no image, or data set and model differ in their classes.
        """
        options = options or InferenceOptions()
        self.dataset = dataset
        self.num_images = count_images(model, dataset, limit, batch_size)
        wanted = (size, None) if size else (dataset.largest_size(), minimum_size)
        self.size = padded_size(model, *wanted, scales=options.scales)
        self.mesh = make_mesh() if mesh is None else mesh
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self._workers = workers
        self._forward = forward_pass(model, options, finish, batch_sharding(self.mesh))

    def run(self, variables: Any, reporter: Reporter) -> Iterator[tuple[Batch, Any]]:
        """Yields this host's part of each batch with what the function made of it.

        The device is always one batch ahead of what is yielded.

        Args:
          variables: of the model, on any devices.
          reporter: hears of the batches.

        Yields:
          The batch of `evaluation_batches`, and the function's result as NumPy arrays.
        """
        variables = jax.device_put(variables, replicated(self.mesh))
        batches = evaluation_batches(
            self.dataset,
            self.size,
            batch_size=self.batch_size,
            host=jax.process_index(),
            num_hosts=jax.process_count(),
            workers=self._workers,
            limit=self.num_images,
        )
        total = -(-self.num_images // self.batch_size)
        waiting: list[tuple[Batch, Any]] = []
        for batch in reporter.track(batches, "evaluating, batch", total):
            image = put_batch({"image": batch["image"]}, self.mesh)["image"]
            waiting.append((batch, self._forward(variables, image)))
            if len(waiting) > 1:
                yield _arrived(*waiting.pop(0))
        yield _arrived(*waiting.pop())


def sum_over_hosts(counts: np.ndarray) -> np.ndarray:
    """Returns the sum of every host's int64 array of one shape, on all of them."""
    if jax.process_count() == 1:
        return counts
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


def _arrived(batch: Batch, output: Any) -> tuple[Batch, Any]:
    return batch, jax.tree.map(_local_rows, output)


def _local_rows(array: jax.Array) -> np.ndarray:
    """Returns the rows that lie on this host's devices."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
