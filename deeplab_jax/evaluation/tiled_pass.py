"""One way through a split: every image cut into tiles, exactly once."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from deeplab_jax.data import Batch, Dataset
from deeplab_jax.evaluation.split_pass import DEFAULT_BATCH_SIZE, count_images
from deeplab_jax.inference import InferenceOptions
from deeplab_jax.inference.forward import Finish, forward_pass
from deeplab_jax.inference.tiles import Tiling, run_tiles
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import make_mesh, put_batch, replicated
from deeplab_jax.reporter import Reporter


class TiledPass:
    """Cuts each image by itself, at its own size, as a predictor does.

    Hosts work on their own images, each with its own devices: images differ in their number of
    tiles. Results are held for one image.

    Attributes:
      dataset: what is gone through.
      sizes: None: images are not padded to a size of their own.
      batch_size: tiles at once on this host, a multiple of its devices.
      num_images: how many are gone through.
    """

    sizes = None

    def __init__(
        self,
        model: DeepLab,
        dataset: Dataset,
        finish: Finish,
        *,
        options: InferenceOptions,
        batch_size: int = DEFAULT_BATCH_SIZE,
        mesh: Mesh | None = None,
        limit: int | None = None,
    ) -> None:
        """Decides; nothing runs yet.

        Args:
          model: as of `SplitPass`.
          dataset: as of `SplitPass`.
          finish: class map [N, h, w] and logits [N, h, w, num_classes] -> arrays [N, …, h, w];
            is compiled.
          options: must name a tile.
          batch_size: tiles at once; rounded up to a multiple of this host's devices.
          mesh: devices to use, by default all; each host uses its own of them.
          limit: only the first so many images.

        Raises:
          DeepLabError: as of `SplitPass`, or the overlap leaves nothing of a tile.
        """
        self.dataset = dataset
        self.num_images = count_images(model, dataset, limit, batch_size)
        self.mesh = make_mesh(jax.local_devices() if mesh is None else mesh.local_devices)
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self._tiling = Tiling.of(model, options)
        self._forward = forward_pass(model, options, finish, self.mesh)

    def run(self, variables: Any, reporter: Reporter) -> Iterator[tuple[Batch, Any]]:
        """Yields this host's images, each as a batch of one, with what the function made of it.

        Args:
          variables: of the model, on any devices.
          reporter: hears of the images.
        """
        forward = functools.partial(
            self._forward_tiles, jax.device_put(variables, replicated(self.mesh))
        )
        for index in reporter.track(self.own_positions().tolist(), "evaluating, image"):
            example = self.dataset[index]
            results = run_tiles(
                self._tiling, forward, example["image"], tiles_at_once=self.batch_size
            )
            batch = {
                "image": example["image"],
                "label": example["label"],
                "index": np.int32(index),
                "size": np.array(example["label"].shape, np.int32),
            }
            yield jax.tree.map(lambda array: np.asarray(array)[None], (batch, results))

    def own_positions(self) -> np.ndarray:
        """Returns the positions in the data set of the images that this host yields, in order."""
        return np.arange(jax.process_index(), self.num_images, jax.process_count())

    def _forward_tiles(self, variables: Any, tiles: np.ndarray) -> Any:
        return self._forward(variables, put_batch({"image": tiles}, self.mesh)["image"])
