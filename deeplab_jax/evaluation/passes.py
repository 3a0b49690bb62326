"""Inference over a dataset split, with whole images or tiles."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from deeplab_jax.data import Batch, Dataset, evaluation_batches, evaluation_order
from deeplab_jax.data.descriptors import Bands
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.class_list import ClassList
from deeplab_jax.inference import ImageClassification, Predictor
from deeplab_jax.inference.options import DEFAULT_SAMPLES
from deeplab_jax.inference.padding import Size, canvas_size, padded_size
from deeplab_jax.inference.tiles import Tiling, run_tiles
from deeplab_jax.labels import void_label
from deeplab_jax.models import DeepLab
from deeplab_jax.parallel import (
    data_share,
    data_size,
    make_mesh,
    rows_of_this_process,
    wait_for_hosts,
)
from deeplab_jax.reporter import Reporter

# Function from the images of this process, uint8 [N, H, W, C], to arrays [N, …]; see
# `FoldedNetwork.forward`.
Forward = Callable[[np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Settings of inference over a split. Batch size, mesh and workers do not affect metrics.

    Attributes:
      size: (H, W) to which every image is padded, rounded up to a size that the network accepts
        (default: each image is padded to one of a few sizes that the network accepts). Not
        allowed with tiles.
      batch_size: number of images per batch across all hosts, rounded up to a multiple of the size
        of the mesh axis `data`. With tiles, number of tiles per batch on each host, rounded up to a
        multiple of the number of devices of this host.
      mesh: mesh of the devices to use (default: all devices).
      workers: number of data-loading processes; 0: threads of this process.
      limit: maximum number of images, from the start of the split.
      class_list: classes to score (default: the classes of the model; the dataset must then have
        the same number of classes).
      uncertainty: names of the uncertainties to compute: `confidence`, `entropy`, `dropout`,
        `scales`. For each of them, `evaluate` measures how well it detects wrong pixels.
      dropout_samples: number of dropout masks of the uncertainty `dropout`, at least 2.
    """

    size: Size | None = None
    batch_size: int = 8
    mesh: Mesh | None = None
    workers: int = 0
    limit: int | None = None
    class_list: ClassList | None = None
    uncertainty: Sequence[str] = ()
    dropout_samples: int = DEFAULT_SAMPLES


class WholeImageInference:
    """Inference over whole images of a split, each padded to a size that the network accepts.

    Attributes:
      dataset: split to predict.
      sizes: list with the padded (H, W) of each image, in pixels. It contains few distinct sizes.
      mesh: mesh of the devices.
      batch_size: number of images per batch across all hosts, a multiple of the size of the mesh
        axis `data`.
      num_images: number of images to predict.
    """

    def __init__(
        self,
        model: DeepLab,
        dataset: Dataset,
        settings: EvaluationSettings,
        scales: tuple[float, ...] = (1.0,),
        minimum_size: Size | None = None,
        fixed_size: Size | None = None,
    ) -> None:
        """Determines the padded sizes of the images.

        Args:
          model: network that determines the legal sizes.
          dataset: split whose images have the bands of the model. Model and split must have equal
            numbers of classes if there is no class list.
          settings: size, batch size, mesh, workers, limit and class list.
          scales: factors by which padded images are resized. They affect the legal sizes, see
            `size_grid`.
          minimum_size: (H, W) to which smaller images are padded, or None.
          fixed_size: the only (H, W) that the network accepts, to which all images are padded, or
            None.

        Raises:
          DeepLabError: there is no image, an image is larger than the size in `settings`, or
            `dataset` does not match the model.
        """
        self.dataset = dataset
        self.num_images = count_images(model, dataset, settings)
        if fixed_size is not None:
            self.sizes = [fixed_size] * self.num_images
        elif settings.size is not None:
            height, width = map(int, settings.size)
            size = padded_size(model, (height, width), scales=scales)
            check_size(size, dataset, self.num_images)
            self.sizes = [size] * self.num_images
        else:
            own = image_sizes(dataset, self.num_images).tolist()
            self.sizes = [canvas_size(model, tuple(one), minimum_size, scales) for one in own]
        self.mesh = make_mesh() if settings.mesh is None else settings.mesh
        parts = data_size(self.mesh)
        self.batch_size = int(-(-settings.batch_size // parts) * parts)
        self._fill, self._workers = model.architecture.mean_pixel, settings.workers

    def run(self, forward: Forward, reporter: Reporter) -> Iterator[tuple[Batch, Any]]:
        """Applies a function to this host's part of each batch.

        Every host yields the same number of batches. Void examples, whose label is void everywhere,
        fill incomplete batches. If the rows of an image are sharded over several hosts, only one of
        these hosts yields the image with its label, and the others yield it as a void example.
        While the caller processes a batch, the devices compute the next one.

        Args:
          forward: function from images [N, h, w, C] to results [N, h, w, …], compiled for the mesh.
          reporter: receives progress events.

        Yields:
          This host's part of a batch, and the results of `forward` for this part as NumPy arrays.
          The batch is a dictionary with `image`, `label`, `index` (position in the split; -1 for a
          void example) and `size` ((H, W) before padding).
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
        """Returns the positions in the split, in ascending order, of the images of this host.

        On this host, `run` yields exactly these images with their labels.
        """
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
        if not data_share(self.mesh).counts:
            # The batch is yielded nevertheless, because callers synchronize the hosts after it.
            void = void_label(self.dataset.descriptor.num_classes)
            batch = batch | {
                "label": np.full_like(batch["label"], void),
                "index": np.full_like(batch["index"], -1),
            }
        yield batch, arrived


class TiledInference:
    """Inference over a split, with every image divided into tiles.

    Images differ in their number of tiles, so each host predicts its own images on its own devices.
    Only the result of one image at a time is in memory.

    Attributes:
      dataset: split to predict.
      sizes: None, since images are not padded to a size.
      mesh: mesh of the devices of this host.
      batch_size: number of tiles per batch, a multiple of the number of devices of this host.
      num_images: number of images to predict, across all hosts.
    """

    sizes = None

    def __init__(
        self, model: DeepLab, dataset: Dataset, settings: EvaluationSettings, tiling: Tiling
    ) -> None:
        """Determines the devices and the batch size.

        Args:
          model: network to apply.
          dataset: split whose images have the bands of the model. Model and split must have equal
            numbers of classes if there is no class list.
          settings: batch size, mesh, limit and class list. `workers` is ignored, since reading an
            image takes little time compared with predicting its tiles.
          tiling: division of images into tiles.

        Raises:
          DeepLabError: `settings` contain a size, there is no image, or `dataset` does not match
            the model.
        """
        if settings.size is not None:
            raise DeepLabError(
                "size (--size) applies only to whole images, but the images are predicted in "
                "tiles; omit size (--size) or tile (--tile)"
            )
        self.dataset, self._tiling = dataset, tiling
        self.num_images = count_images(model, dataset, settings)
        mesh = settings.mesh
        self.mesh = make_mesh(jax.local_devices() if mesh is None else mesh.local_devices)
        self.batch_size = int(-(-settings.batch_size // self.mesh.size) * self.mesh.size)

    def run(self, forward: Forward, reporter: Reporter) -> Iterator[tuple[Batch, Any]]:
        """Applies a function to the tiles of each image of this host.

        Args:
          forward: function from tiles [N, h, w, C] to results [N, h, w, …], compiled for the mesh.
          reporter: receives progress events.

        Yields:
          A batch of one image, and the results of `forward` for all its tiles, joined to [1, H, W,
          …]. The batch is a dictionary with `image`, `label`, `index` (position in the split) and
          `size` ((H, W) of the image).
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
        """Returns the positions in the split, in ascending order, of the images of this host."""
        return np.arange(jax.process_index(), self.num_images, jax.process_count())


Inference = WholeImageInference | TiledInference


def make_inference(
    predictor: Predictor, dataset: Dataset, settings: EvaluationSettings
) -> Inference:
    """Returns the inference over a split, with tiles if the predictor has a tile size.

    Args:
      predictor: model and inference options.
      dataset: split whose images have the bands of the model. Model and split must have equal
        numbers of classes if there is no class list.
      settings: size, batch size, mesh, workers, limit and class list.

    Raises:
      DeepLabError: the model is a classifier of whole images, there is no image, `dataset` does not
        match the model, an image is larger than the given size or the only size that the network
        accepts, or a size is given although the images are predicted in tiles or the network
        accepts only another size.
    """
    check_segments(predictor)
    if predictor.tiling:
        return TiledInference(predictor.model, dataset, settings, predictor.tiling)
    fixed_size = predictor.fixed_size
    inference = WholeImageInference(
        predictor.model,
        dataset,
        settings,
        predictor.options.scales,
        predictor.inference_size,
        fixed_size,
    )
    if fixed_size is not None:
        if settings.size is not None and tuple(settings.size) != fixed_size:
            raise DeepLabError(
                f"{predictor.source} takes only images of {fixed_size[0]}x{fixed_size[1]} (height "
                "x width), to which all images are padded; omit size"
            )
        for height, width in image_sizes(dataset, inference.num_images).tolist():
            predictor.check_size((height, width))
    return inference


def check_segments(predictor: Predictor | ImageClassification) -> None:
    """Raises `DeepLabError` if a model classifies whole images."""
    if isinstance(predictor, ImageClassification):
        raise DeepLabError(
            f"{predictor.source} classifies whole images and cannot segment them; give a "
            "segmentation model, or train one from these weights (training.init_from)"
        )


def image_sizes(dataset: Dataset, count: int) -> np.ndarray:
    """Returns (height, width) in pixels of the first `count` images, int [count, 2].

    If the dataset does not store the sizes, the function reads these images.
    """
    if hasattr(dataset, "image_sizes"):
        return dataset.image_sizes()[:count]
    return np.array([dataset[index]["label"].shape for index in range(count)])


def check_size(size: Size, dataset: Dataset, count: int) -> None:
    """Checks that images fit into the size to which they are padded.

    Args:
      size: (H, W) to which images are padded.
      dataset: split of the images.
      count: number of images to check, from the start of the split.

    Raises:
      DeepLabError: one of the images is higher or wider than `size`.
    """
    height, width = image_sizes(dataset, count).max(axis=0).tolist()
    if height > size[0] or width > size[1]:
        raise DeepLabError(
            f"{dataset.name}/{dataset.split} has images of up to {height}x{width} (height x "
            f"width), larger than the evaluation size {size[0]}x{size[1]}; omit the size "
            f"(--size; in training, give --config.evaluation.size=None), or give at least "
            f"{height}x{width}"
        )


def sum_over_hosts(counts: np.ndarray) -> np.ndarray:
    """Returns, on every host, the sum of the arrays of all hosts.

    Args:
      counts: array of this host, int64 or float64, with the same shape on all hosts.
    """
    if jax.process_count() == 1:
        return counts
    wait_for_hosts("counts")
    # The arrays are sent as bytes, because JAX would convert 64-bit types to 32 bits.
    gathered = multihost_utils.process_allgather(np.ascontiguousarray(counts).view(np.uint8))
    return np.ascontiguousarray(gathered).view(counts.dtype).sum(axis=0)


def count_images(model: DeepLab, dataset: Dataset, settings: EvaluationSettings) -> int:
    """Returns the number of images to evaluate: those of the dataset, but at most `settings.limit`.

    Raises:
      DeepLabError: the number of images or the batch size is below 1, dataset and model have
        different bands, or they have different numbers of classes and there is no class list.
    """
    architecture, found = model.architecture, dataset.descriptor.bands
    taken = Bands(architecture.in_channels, architecture.image_dtype)
    if (found.count, found.dtype) != (taken.count, taken.dtype):
        raise DeepLabError(
            f"the model takes {taken}, but the images of {dataset.name} have {found}; evaluate on "
            "data with the bands of the model"
        )
    outputs, classes = architecture.num_classes, dataset.descriptor.num_classes
    if outputs != classes and settings.class_list is None:
        raise DeepLabError(
            f"the model has {outputs} classes, but the dataset {dataset.name} has {classes}; "
            "evaluate on data with the classes of the model, state which classes correspond "
            "(--class_map=FILE, in Python class_map), or fine-tune the model"
        )
    limit = settings.limit
    num_images = len(dataset) if limit is None else min(limit, len(dataset))
    if num_images < 1 or settings.batch_size < 1:
        raise DeepLabError(
            f"nothing to evaluate: {dataset.name}/{dataset.split} has {len(dataset)} images, with "
            f"limit={limit} and batch_size={settings.batch_size}; the number of images, the limit "
            "(if not None) and the batch size must be at least 1"
        )
    return int(num_images)
