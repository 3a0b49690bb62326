"""Whether an exported file gives what the network gives, on real images."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from deeplab_jax.data import MEAN_PIXEL
from deeplab_jax.data.padding import pad
from deeplab_jax.deploy.loader import ExportedNetwork
from deeplab_jax.deploy.program import Program, Size, fitted
from deeplab_jax.inference import Predictor
from deeplab_jax.reporter import LoggingReporter, Reporter

# Batches of the three comparisons where sizes or batches are open.
BATCHES = (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Verification:
    """How near an exported file comes to its original.

    Attributes:
      images: compared.
      size: (H, W) in pixels to which they were brought.
      batch: images a call.
      largest_difference: of two logits; None where the file gives class maps.
      largest_logit: of the original, without sign; None likewise.
      label_agreement: share of the images' pixels, 0..1, that have the same class.
    """

    images: int
    size: Size
    batch: int
    largest_difference: float | None
    largest_logit: float | None
    label_agreement: float

    def __str__(self) -> str:
        height, width = self.size
        logits = (
            ""
            if self.largest_difference is None
            else f"largest difference of logits {self.largest_difference:.2g} "
            f"(logits up to {self.largest_logit:.3g}), "
        )
        return (
            f"{self.images} images at {height}×{width}, batch {self.batch}: {logits}"
            f"same class at {100 * self.label_agreement:.4f} % of pixels"
        )


def cases(program: Program) -> list[tuple[Size, int]]:
    """Returns the sizes and batches at which a file is worth comparing.

    Its own, and two more of each that the options leave open.
    """
    options, (step, plus), own = program.options, program.step, program.own_size
    sizes = [own]
    if options.size is None:
        units = [(length - plus) // step for length in own]
        smaller = [(max(1, n * 3 // 4), max(1, n // 2)) for n in units]
        # The second stands upright: height and width may be mixed up somewhere.
        sizes += [
            (smaller[0][0] * step + plus, smaller[1][1] * step + plus),
            (smaller[0][1] * step + plus, smaller[1][0] * step + plus),
        ]
    batches = BATCHES if options.batch is None else (options.batch,)
    # The shorter list goes on with its last.
    count = max(len(sizes), len(batches))
    sizes += sizes[-1:] * (count - len(sizes))
    return list(zip(sizes, (*batches, *batches[-1:] * (count - len(batches))), strict=True))


def verify(
    exported: ExportedNetwork,
    predictor: Predictor,
    images: Sequence[np.ndarray],
    size: Size,
    batch: int = 1,
    reporter: Reporter | None = None,
) -> Verification:
    """Runs the file and the network on the same images.

    Args:
      exported: of `load_exported`.
      predictor: of the original.
      images: uint8 [H, W, 3]; larger ones are shrunk to fit `size`, then all are padded to it.
      size: (H, W) in pixels.
      batch: images a call; the last call repeats the last image.
      reporter: hears of progress.
    """
    original, variables = jax.jit(predictor.model.apply), jax.device_put(predictor.variables)
    difference = largest = 0.0
    same = pixels = 0
    gives_logits = exported.metadata.output["name"] == "logits"
    calls = list(_batches([fitted(image, size) for image in images], batch))
    for members in (reporter or LoggingReporter()).track(calls, "verifying, batch"):
        padded = np.stack([pad(image, size, MEAN_PIXEL) for image in members])
        padded = np.concatenate([padded, np.repeat(padded[-1:], batch - len(members), 0)])
        expected = np.asarray(original(variables, padded))
        found = exported(padded)
        labels = found
        if gives_logits:
            labels = found.argmax(-1)
            difference = max(difference, float(np.abs(found - expected).max()))
            largest = max(largest, float(np.abs(expected).max()))
        agrees = labels == expected.argmax(-1)
        for image, agreement in zip(members, agrees, strict=False):
            height, width = image.shape[:2]
            same += np.count_nonzero(agreement[:height, :width])
            pixels += height * width
    of_logits = (difference, largest) if gives_logits else (None, None)
    return Verification(len(images), size, batch, *of_logits, same / pixels)


def _batches(images: list[np.ndarray], batch: int) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(images), batch):
        yield images[start : start + batch]
