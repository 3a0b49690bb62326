"""Results of a model for each image of a dataset split."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeplab_jax.data import Batch
from deeplab_jax.errors import DeepLabError
from deeplab_jax.evaluation.class_list import ClassList
from deeplab_jax.evaluation.passes import Inference
from deeplab_jax.inference import Predictor
from deeplab_jax.inference.forward import only_logits
from deeplab_jax.inference.options import DEFAULT_SAMPLES
from deeplab_jax.inference.refinement import refine
from deeplab_jax.inference.uncertainty import of_probabilities, uncertainty_functions
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.metrics import NUM_BINS, probability_bins
from deeplab_jax.reporter import Reporter
from deeplab_jax.visualize import Panel


class SheetRow(NamedTuple):
    """Content of the row for one image in `contact_sheet.png` and `uncertainty.png`.

    Attributes:
      position, panel, uncertainty: see `ImageResult`.
    """

    position: int
    panel: Panel
    uncertainty: Mapping[str, np.ndarray]


class ImageResult(NamedTuple):
    """Result for one image.

    The classes are those of the model. If a class list was given, they are `ClassList.outcomes`
    instead: the scored classes, followed by one class for all other predictions.

    Attributes:
      position: index of the image in the split.
      panel: image, true labels and predicted labels.
      bins: uint16 [num_classes, H, W], bin of each probability: the index (0..999) of one of 1,000
        equal intervals of 0..1.
      probabilities: float32 [H, W, num_classes], or None if only bins were computed.
      uncertainty: {name of an uncertainty: its value at each pixel, float32 [H, W], 0..1}.
    """

    position: int
    panel: Panel
    bins: np.ndarray
    probabilities: np.ndarray | None = None
    uncertainty: Mapping[str, np.ndarray] = MappingProxyType({})

    def with_uncertainty(
        self, names: Sequence[str], computed: Mapping[str, np.ndarray]
    ) -> "ImageResult":
        """Returns this result with values for the field `uncertainty`.

        Args:
          names: uncertainties to compute from the field `probabilities`: `confidence`, `entropy`.
          computed: other uncertainties, which are already computed: {name: float32 [H, W]}.
        """
        if not names and not computed:
            return self
        found = dict(computed)
        if self.probabilities is not None:
            found |= {name: of_probabilities(name, self.probabilities) for name in names}
        return self._replace(uncertainty=found)

    def sheet_row(self) -> SheetRow:
        """Returns the row of the contact sheet for this image.

        Arrays are copied, because views would keep the arrays of the whole batch in memory.
        """
        # The arrays of a result are views of the arrays of its whole batch.
        maps = {name: values.copy() for name, values in self.uncertainty.items()}
        return SheetRow(self.position, Panel(*(array.copy() for array in self.panel)), maps)


def image_results(
    inference: Inference,
    predictor: Predictor,
    reporter: Reporter,
    class_list: ClassList | None = None,
    probabilities: bool = False,
    uncertainty: Sequence[str] = (),
    dropout_samples: int = DEFAULT_SAMPLES,
) -> Iterator[ImageResult]:
    """Yields one result for each image of this host, at the size of the image.

    Args:
      inference: result of `make_inference` for this predictor.
      predictor: model to apply.
      reporter: receives progress events.
      class_list: classes that are scored (default: those of the model).
      probabilities: whether to return the probabilities, computed with the predictor's temperature.
      uncertainty: names of the uncertainties to compute: `confidence`, `entropy`, `dropout`,
        `scales`.
      dropout_samples: number of dropout masks of the uncertainty `dropout`, at least 2.

    Raises:
      DeepLabError: the outputs of the network are not finite, or the predictor does not support an
        uncertainty, for example because its model has no dropout layer.
    """
    mesh, options = inference.mesh, predictor.options
    variances = uncertainty_functions(predictor, uncertainty, mesh, dropout_samples)
    shown = [name for name in uncertainty if name not in variances]
    if predictor.crf is not None:
        for index, scores, image, label in image_scores(inference, predictor, reporter):
            refined = refine(scores, image, predictor.crf)
            class_map = refined.argmax(axis=-1).astype(label_dtype(scores.shape[-1]))
            result = _in_bins(index, Panel(image, label, class_map), refined, class_list)
            yield result.with_uncertainty(shown, {})
        return
    # Bins take half the memory of probabilities, so they are preferred where they are sufficient.
    only_bins = class_list is None and not probabilities and not shown
    finish = predictor.calibrated(classes_and_bins if only_bins else classes_and_probabilities)
    forward = predictor.network.forward(options, finish, mesh)

    def run(images: np.ndarray) -> tuple[Any, dict[str, Any]]:
        return forward(images), {name: of(images) for name, of in variances.items()}

    for index, image, label, outputs in _own(inference.run(run, reporter)):
        (class_map, ranking), computed = outputs
        _check_finite(class_map != void_label(len(predictor.class_names)), inference, index)
        panel = Panel(image, label, class_map)
        if only_bins:
            result = ImageResult(index, panel, np.moveaxis(ranking, -1, 0))
        else:
            result = _in_bins(index, panel, ranking, class_list)
        yield result.with_uncertainty(shown, computed)


def image_scores(
    inference: Inference, predictor: Predictor, reporter: Reporter
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the logits of each image of this host, without padding.

    Args:
      inference: result of `make_inference` for this predictor.
      predictor: model to apply.
      reporter: receives progress events.

    Yields:
      Index of the image in the split, logits [H, W, C], image [H, W, bands], and label [H, W].

    Raises:
      DeepLabError: the outputs of the network are not finite.
    """
    forward = predictor.network.forward(predictor.options, only_logits, inference.mesh)
    for index, image, label, scores in _own(inference.run(forward, reporter)):
        _check_finite(np.isfinite(scores), inference, index)
        yield index, scores, np.ascontiguousarray(image), label


def _check_finite(finite: np.ndarray, inference: Inference, index: int) -> None:
    """Checks the outputs of the network for one image.

    Args:
      finite: bool array of any shape, False for outputs that are not finite.
      inference: inference over the split.
      index: index of the image in the split.

    Raises:
      DeepLabError: some outputs are NaN or infinite, so their classes have no meaning.
    """
    if not finite.all():
        dataset = inference.dataset
        raise DeepLabError(
            f"{dataset.name}/{dataset.split}, image {index}: the outputs of the network are not "
            "finite (NaN or infinite), so they define no classes; check the weights of the model, "
            "or use another checkpoint"
        )


def _own(
    batches: Iterator[tuple[Batch, Any]],
) -> Iterator[tuple[int, np.ndarray, np.ndarray, Any]]:
    """Divides batches into images. Removes padding images, and the padded border of each image.

    Args:
      batches: pairs of a batch and its outputs, a pytree of arrays [N, H, W, …].

    Yields:
      Index of the image in the split, image [H, W, C], label [H, W], and the outputs for the image,
      a pytree of arrays [H, W, …].
    """
    for batch, outputs in batches:
        for position in np.flatnonzero(batch["index"] >= 0):
            height, width = batch["size"][position]
            image, label = (batch[key][position, :height, :width] for key in ("image", "label"))
            own = [array[position, :height, :width] for array in jax.tree.leaves(outputs)]
            result = jax.tree.unflatten(jax.tree.structure(outputs), own)
            yield int(batch["index"][position]), image, label, result


def _in_bins(
    index: int, panel: Panel, probabilities: np.ndarray, class_list: ClassList | None
) -> ImageResult:
    """Returns the result for one image, with the probabilities and their bins.

    Args:
      index: index of the image in the split.
      panel: image, true labels and predicted labels.
      probabilities: float32 [H, W, classes of the model].
      class_list: classes that are scored. The labels and the probabilities of the result are those
        of `class_list.outcomes`. None: the classes of the model.
    """
    if class_list is not None:
        probabilities = class_list.probabilities(probabilities)
        panel = panel._replace(
            truth=class_list.truth(panel.truth), prediction=class_list.prediction(panel.prediction)
        )
    bins = np.clip(probabilities * NUM_BINS, 0, NUM_BINS - 1).astype(np.uint16)
    return ImageResult(index, panel, np.moveaxis(bins, -1, 0), probabilities)


def only_labels(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the class map as uint8 for up to 255 classes, else as uint16.

    `Evaluator` passes this function to the network as the argument `finish`, because validation
    requires no probabilities. `logits` is used only to determine the number of classes.
    """
    return class_map.astype(label_dtype(logits.shape[-1]))


def _finite_labels(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the result of `only_labels`, with void at pixels whose logits are not all finite."""
    labels = only_labels(class_map, logits)
    void = np.iinfo(labels.dtype).max
    return jnp.where(jnp.isfinite(logits).all(axis=-1), labels, void)


def classes_and_bins(class_map: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the class map [N, H, W], and the bin of each probability [N, H, W, C].

    The class map is void where the logits are not finite. A bin is the index (0..999) of one of
    1,000 equal intervals of 0..1.
    """
    return _finite_labels(class_map, logits), probability_bins(jax.nn.softmax(logits, axis=-1))


def classes_and_probabilities(
    class_map: jax.Array, logits: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the class map [N, H, W] and the probabilities, float32 [N, H, W, C].

    The class map is void where the logits are not finite.
    """
    return _finite_labels(class_map, logits), jax.nn.softmax(logits, axis=-1)
