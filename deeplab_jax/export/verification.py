"""Verification of exported files: compares their outputs with those of the original network."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from deeplab_jax.data.crops import fitted, pad
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.program import Program, Size, check_suits
from deeplab_jax.export.runtimes import ExportedNetwork
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import only_logits
from deeplab_jax.reporter import LoggingReporter, Reporter

# Batch sizes for the comparison if the batch size of the file is not fixed.
BATCHES = (1, 2, 3)
# Two logits are considered equal (a tie) if they differ by at most TIE, or by at most TIE_FRACTION
# of the largest logit.
TIE, TIE_FRACTION = 1e-3, 2e-5


@dataclasses.dataclass(frozen=True)
class Verification:
    """Result of comparing an exported file with the network that it was exported from.

    Attributes:
      images: number of compared images.
      size: (H, W) in pixels to which the images were padded.
      batch: number of images per call.
      largest_difference: maximum absolute difference between the logits of the file and of the
        network; None if the file returns class maps.
      largest_logit: maximum absolute logit of the network.
      label_agreement: fraction of pixels with the same class, 0..1.
      largest_margin: maximum margin over the pixels where the classes differ; 0 if all classes
        agree. The margin is the network's logit for its own class minus its logit for the file's
        class.
    """

    images: int
    size: Size
    batch: int
    largest_difference: float | None
    largest_logit: float
    label_agreement: float
    largest_margin: float

    @property
    def agrees(self) -> bool:
        """True if the predicted classes differ only where their two logits are nearly equal.

        Logits are nearly equal if `largest_margin` is at most 10⁻³ or 2·10⁻⁵ · `largest_logit`.
        """
        return self.largest_margin <= max(TIE, TIE_FRACTION * self.largest_logit)

    def __str__(self) -> str:
        height, width = self.size
        text = f"{self.images} images at {height}×{width}, batch {self.batch}: "
        if self.largest_difference is not None:
            text += f"largest difference of logits {self.largest_difference:.2g} "
            text += f"(logits up to {self.largest_logit:.3g}), "
        text += f"same class at {100 * self.label_agreement:.4f} % of pixels"
        if self.label_agreement < 1:
            text += f"; elsewhere, logits of the two classes differ by {self.largest_margin:.2g}"
            text += " or less"
        return text


def cases(program: Program, sizes: Sequence[Size] = ()) -> list[tuple[Size, int]]:
    """Returns the pairs (size, batch size) for which an exported file is verified.

    The default sizes are `Program.own_size` and, if the file accepts any size, a smaller and a
    larger one. The batch sizes are 1, 2 and 3 or, if the batch size of the file is fixed, only that
    one. Sizes and batch sizes are paired in order; the last entry of the shorter list is repeated.

    Args:
      program: exported program.
      sizes: sizes (H, W) in pixels that replace the default sizes; empty: default sizes.

    Raises:
      DeepLabError: the file does not support one of the sizes.
    """
    options = program.options
    for size in sizes:
        if options.size is None:
            check_suits(size, *program.step)
        elif size != options.size:
            raise DeepLabError(
                f"the file supports only images of {options.size[0]}x{options.size[1]} (height x "
                f"width), not {size[0]}x{size[1]}; export without --size, or omit --verify_size"
            )
    sizes = list(sizes) or [program.own_size, *(() if options.size else _other_sizes(program))]
    batches = BATCHES if options.batch is None else (options.batch,)
    # The shorter of the two lists is extended by its last entry.
    pairs = itertools.zip_longest(sizes, batches)
    return [(size or sizes[-1], batch or batches[-1]) for size, batch in pairs]


def _other_sizes(program: Program) -> tuple[Size, Size]:
    """Returns a size smaller than `Program.own_size`, and a larger one, of other aspect ratios.

    The larger size exceeds the training crop, so that the pooling windows of `image_pooling="crop"`
    do not cover the whole feature map.
    """
    (step, plus), own = program.step, program.own_size
    architecture = program.predictor.model.architecture
    crop = architecture.pooling_crop if architecture.image_pooling == "crop" else own
    least = [(side - plus) // step for side in own]
    most = [(max(pair) - plus) // step for pair in zip(own, crop, strict=True)]
    smaller = max(1, least[0] * 3 // 4), max(1, least[1] // 2)
    larger = most[0] * 5 // 4 + 1, most[1] * 3 // 2 + 1
    return (
        (smaller[0] * step + plus, smaller[1] * step + plus),
        (larger[0] * step + plus, larger[1] * step + plus),
    )


def verify(
    exported: ExportedNetwork,
    predictor: Predictor,
    images: Sequence[np.ndarray],
    size: Size,
    batch: int = 1,
    reporter: Reporter | None = None,
) -> Verification:
    """Compares the outputs of an exported file and of the original network on the same images.

    Args:
      exported: loaded file, returned by `load_exported`.
      predictor: predictor of the original network.
      images: uint8 [H, W, 3]. Larger images are downsampled to fit `size`; then all images are
        padded to `size`.
      size: (H, W) in pixels.
      batch: number of images per call. The last batch is filled with copies of the last image.
      reporter: receives progress events.
    """
    original = predictor.network.forward(InferenceOptions(), only_logits)
    fill = predictor.model.architecture.mean_pixel
    shrunk = [fitted(image, size) for image in images]
    compared = []
    starts = range(0, len(images), batch)
    for start in (reporter or LoggingReporter()).track(starts, "verifying, batch"):
        members = shrunk[start : start + batch]
        each = [pad(image, size, fill) for image in members]
        padded = np.stack(each + each[-1:] * (batch - len(members)))
        expected, found = np.asarray(original(padded)), exported(padded)
        for image, *pair in zip(members, expected, found, strict=False):
            height, width = image.shape[:2]
            compared.append(_compare(*(part[:height, :width] for part in pair)))
    difference, logit, margin, same, pixels = np.array(compared).T
    logits = exported.metadata.output["name"] == "logits"
    largest, agreement = float(difference.max()) if logits else None, same.sum() / pixels.sum()
    return Verification(
        len(images), size, batch, largest, float(logit.max()), float(agreement), float(margin.max())
    )


def _compare(expected: np.ndarray, found: np.ndarray) -> tuple[float, ...]:
    """Compares the outputs for one image.

    Args:
      expected: logits of the network, [H, W, classes].
      found: logits [H, W, classes] or class map [H, W] of the file.

    Returns:
      Five numbers for this image:

      * `largest_difference`, see `Verification`; 0 if the file returns a class map
      * `largest_logit`, see `Verification`
      * `largest_margin`, see `Verification`
      * number of pixels with the same class
      * number of pixels
    """
    labels = found.argmax(-1) if found.ndim == 3 else found
    difference = np.abs(found - expected).max() if found.ndim == 3 else 0.0
    differs = labels != expected.argmax(-1)
    logits, chosen = expected[differs], labels[differs, None]
    margins = logits.max(-1) - np.take_along_axis(logits, chosen, -1)[:, 0]
    logit, margin = float(np.abs(expected).max()), float(margins.max(initial=0))
    return float(difference), logit, margin, float(np.count_nonzero(~differs)), differs.size
