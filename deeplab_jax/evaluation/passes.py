"""How every image of a split goes through the network, once: whole or in tiles."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from deeplab_jax.data import Batch, Dataset, evaluation_batches, evaluation_order
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import ImageClassification, Predictor
from deeplab_jax.inference.padding import Size, canvas_size, padded_size
from deeplab_jax.inference.refinement import refine
from deeplab_jax.inference.tiles import Tiling, run_tiles
from deeplab_jax.labels import label_dtype
from deeplab_jax.metrics import NUM_BINS, probability_bins
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import (
    data_share,
    data_size,
    make_mesh,
    rows_of_this_process,
    wait_for_hosts,
)
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import Panel

# Images of this process, uint8 [N, H, W, C] -> arrays of N rows; see `FoldedNetwork.forward`.
Forward = Callable[[np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """How a split is gone through; the numbers depend on `size` and `limit` alone.

    Attributes:
      size: (H, W) to pad every image to, rounded up to what suits the network; default: what
        follows from the image's own size, see `canvas_size`. Not beside tiles.
      batch_size: images, or tiles, of all hosts together; rounded up to a multiple of the mesh's
        `data`.
      mesh: devices to use, by default all.
      workers: processes that read ahead.
      limit: maximum number of images, the first ones.
    """

    size: Size | None = None
    batch_size: int = 8
    mesh: Mesh | None = None
    workers: int = 0
    limit: int | None = None


class WholeImageInference:
    """Pads every image as a predictor does and sends it through the network, whole.

    Attributes:
      dataset: what is gone through.
      sizes: (H, W) that each image is padded to; few of them differ.
      mesh: of the devices.
      batch_size: of all hosts together, a multiple of the mesh's `data`.
      num_images: how many are gone through.
    """

    def __init__(
        self,
        model: DeepLab,
        dataset: Dataset,
        settings: EvaluationSettings,
        scales: tuple[float, ...] = (1.0,),
        minimum_size: Size | None = None,
    ) -> None:
        """Decides sizes; nothing runs yet.

        Args:
          model: decides the legal sizes and the number of classes.
          dataset: any data set of the same classes.
          settings: how it is gone through.
          scales: that the image is shown at.
          minimum_size: (H, W) that smaller images are padded to, if any.

        Raises:
          DeepLabError: there is no image, or data set and model differ in their classes.
        """
        self.dataset = dataset
        self.num_images = count_images(model, dataset, settings)
        if settings.size is not None:
            self.sizes = [padded_size(model, settings.size, scales=scales)] * self.num_images
        else:
            own = image_sizes(dataset, self.num_images).tolist()
            self.sizes = [canvas_size(model, tuple(one), minimum_size, scales) for one in own]
        self.mesh = make_mesh() if settings.mesh is None else settings.mesh
        parts = data_size(self.mesh)
        self.batch_size = -(-settings.batch_size // parts) * parts
        self._fill, self._workers = model.architecture.mean_pixel, settings.workers

    def run(self, forward: Forward, reporter: Reporter) -> Iterator[tuple[Batch, Any]]:
        """Yields this host's part of each batch with what the function made of it.

        Every host runs the same number of steps. If several hosts share the rows of the same
        images, only one yields them. The device is always one batch ahead of what is yielded.

        Args:
          forward: for the mesh.
          reporter: receives the progress.

        Yields:
          The batch of `evaluation_batches`, and the function's result as NumPy arrays.
        """
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
            waiting.append((batch, forward(batch["image"])))
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


class TiledInference:
    """Cuts each image by itself, at its own size, as a predictor does.

    Hosts work on their own images, each with its own devices: images differ in their number of
    tiles. Results are held for one image.

    Attributes:
      dataset: what is gone through.
      sizes: None: images are not padded to a size of their own.
      mesh: of this host's devices.
      batch_size: tiles at once on this host, a multiple of its devices.
      num_images: how many are gone through.
    """

    sizes = None

    def __init__(
        self, model: DeepLab, dataset: Dataset, settings: EvaluationSettings, tiling: Tiling
    ) -> None:
        """Decides; nothing runs yet.

        Args:
          model, dataset, settings: as of `WholeImageInference`; nothing is read ahead, which gains
            nothing beside that many tiles.
          tiling: how images are cut.

        Raises:
          DeepLabError: as of `WholeImageInference`, or a size is given.
        """
        if settings.size is not None:
            raise DeepLabError("size is what whole images are padded to; leave it out beside tiles")
        self.dataset, self._tiling = dataset, tiling
        self.num_images = count_images(model, dataset, settings)
        mesh = settings.mesh
        self.mesh = make_mesh(jax.local_devices() if mesh is None else mesh.local_devices)
        self.batch_size = -(-settings.batch_size // self.mesh.size) * self.mesh.size

    def run(self, forward: Forward, reporter: Reporter) -> Iterator[tuple[Batch, Any]]:
        """Yields this host's images, each as a batch of one, with what the function made of it.

        Args:
          forward: for the mesh; results are [N, …, h, w].
          reporter: receives the progress.
        """
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


Inference = WholeImageInference | TiledInference


def make_inference(
    predictor: Predictor, dataset: Dataset, settings: EvaluationSettings
) -> Inference:
    """Returns the way through a split that the predictor's options ask for.

    Args:
      predictor: the model, with its options.
      dataset: of the model's classes.
      settings: how it is gone through.

    Raises:
      DeepLabError: the model has no class map, there is no image, or data set and model differ in
        their classes.
    """
    if isinstance(predictor, ImageClassification):
        raise DeepLabError(
            f"{predictor.source} classifies whole images and has no class map to measure; "
            "train a segmentation network that starts from it (training.init_from), or give one"
        )
    if predictor.tiling:
        return TiledInference(predictor.model, dataset, settings, predictor.tiling)
    return WholeImageInference(
        predictor.model, dataset, settings, predictor.options.scales, predictor.inference_size
    )


class ImageResult(NamedTuple):
    """One image.

    Attributes:
      index: position in the split.
      panel: the image with its truth and prediction.
      bins: uint16 [num_classes, H, W], of `probability_bins`.
    """

    index: int
    panel: Panel
    bins: np.ndarray


def image_results(
    inference: Inference, predictor: Predictor, reporter: Reporter
) -> Iterator[ImageResult]:
    """Yields the result of each of this host's images, exactly once, at its own size.

    Args:
      inference: of `make_inference` for this predictor.
      predictor: the model.
      reporter: receives the progress.
    """
    if predictor.crf is not None:
        for index, scores, image, label in image_scores(inference, predictor, reporter):
            yield ImageResult(index, *_refined(scores, image, label, predictor))
        return
    forward = predictor.network.forward(predictor.options, classes_and_bins, inference.mesh)
    for index, image, label, (class_map, bins) in _own(inference.run(forward, reporter)):
        yield ImageResult(index, Panel(image, label, class_map), bins)


def image_scores(
    inference: Inference, predictor: Predictor, reporter: Reporter
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields position, logits [H, W, C], image and label of each of this host's images."""
    forward = predictor.network.forward(predictor.options, scores_first, inference.mesh)
    for index, image, label, scores in _own(inference.run(forward, reporter)):
        yield index, np.moveaxis(scores, 0, -1), np.ascontiguousarray(image), label


def _own(
    batches: Iterator[tuple[Batch, Any]],
) -> Iterator[tuple[int, np.ndarray, np.ndarray, Any]]:
    """Yields position, image, label and result [..., H, W] of each image, without padding."""
    for batch, outputs in batches:
        for position in np.flatnonzero(batch["index"] >= 0):
            height, width = batch["size"][position]
            image, label = (batch[key][position, :height, :width] for key in ("image", "label"))
            own = [array[position, ..., :height, :width] for array in jax.tree.leaves(outputs)]
            result = jax.tree.unflatten(jax.tree.structure(outputs), own)
            yield int(batch["index"][position]), image, label, result


def _refined(
    scores: np.ndarray, image: np.ndarray, label: np.ndarray, predictor: Predictor
) -> tuple[Panel, np.ndarray]:
    probabilities = refine(scores, image, predictor.crf)
    bins = np.clip(probabilities * NUM_BINS, 0, NUM_BINS - 1).astype(np.uint16)
    class_map = probabilities.argmax(axis=-1).astype(label_dtype(scores.shape[-1]))
    return Panel(image, label, class_map), np.moveaxis(bins, -1, 0)


def only_labels(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the class map as labels are stored: the `Finish` of a quick evaluation."""
    return class_map.astype(label_dtype(logits.shape[-1]))


def classes_and_bins(class_map: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the class map [N, H, W] and `probability_bins` [N, C, H, W]."""
    bins = probability_bins(jax.nn.softmax(logits, axis=-1))
    return only_labels(class_map, logits), jnp.moveaxis(bins, -1, 1)


def scores_first(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the logits as [N, C, H, W]."""
    del class_map
    return jnp.moveaxis(logits, -1, 1)


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


def count_images(model: DeepLab, dataset: Dataset, settings: EvaluationSettings) -> int:
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
    limit = settings.limit
    num_images = len(dataset) if limit is None else min(limit, len(dataset))
    if num_images < 1 or settings.batch_size < 1:
        raise DeepLabError(
            f"nothing to evaluate: {len(dataset)} images in {dataset.name}/{dataset.split}, "
            f"limit {limit}, batch size {settings.batch_size}; each must be at least 1"
        )
    return num_images
