"""Compares an exported file with its network on real images."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from deeplab_jax.data.crops import fitted, pad
from deeplab_jax.errors import DeepLabError
from deeplab_jax.export.program import Program, Size, check_suits
from deeplab_jax.export.runtimes import ExportedNetwork
from deeplab_jax.inference import InferenceOptions, Predictor
from deeplab_jax.inference.forward import only_logits
from deeplab_jax.reporter import LoggingReporter, Reporter

# Batches of the three comparisons where sizes or batches are open.
BATCHES = (1, 2, 3)
# Two logits tie if they differ by no more than TIE, or than a share of the largest logit.
TIE, TIE_SHARE = 1e-3, 2e-5


@dataclasses.dataclass(frozen=True)
class Verification:
    """How near an exported file comes to its original.

    Attributes:
      images: compared.
      size: (H, W) in pixels to which they were brought.
      batch: images a call.
      largest_difference: of two logits; None where the file gives class maps.
      largest_logit: of the original, without sign.
      label_agreement: share of the images' pixels, 0..1, that have the same class.
      largest_margin: of the other pixels, by how much the original's logit of its own class exceeds
        that of the file's class, at most; 0 where all pixels agree.
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
        """Whether classes differ in nothing but the rounding of 32-bit floats: where two tie."""
        return self.largest_margin <= max(TIE, TIE_SHARE * self.largest_logit)

    def __str__(self) -> str:
        height, width = self.size
        logits = (
            ""
            if self.largest_difference is None
            else f"largest difference of logits {self.largest_difference:.2g} "
            f"(logits up to {self.largest_logit:.3g}), "
        )
        others = (
            ""
            if self.label_agreement == 1
            else f", the others within {self.largest_margin:.2g} of a tie"
        )
        return (
            f"{self.images} images at {height}×{width}, batch {self.batch}: {logits}"
            f"same class at {100 * self.label_agreement:.4f} % of pixels{others}"
        )


def cases(program: Program, sizes: Sequence[Size] = ()) -> list[tuple[Size, int]]:
    """Returns the sizes and batches at which a file is worth comparing.

    Its own, and two more of each that the options leave open.

    Args:
      program: that was exported.
      sizes: (H, W) in pixels to compare at instead.

    Raises:
      DeepLabError: the file does not take one of the sizes.
    """
    options = program.options
    for size in sizes:
        if options.size is None:
            check_suits(size, *program.step)
        elif size != options.size:
            raise DeepLabError(
                f"the file takes {options.size[0]}x{options.size[1]} alone, not "
                f"{size[0]}x{size[1]}; leave the size open, or compare at that one"
            )
    sizes = list(sizes) or [program.own_size, *(() if options.size else _other_sizes(program))]
    batches = BATCHES if options.batch is None else (options.batch,)
    # The shorter list goes on with its last.
    count = max(len(sizes), len(batches))
    sizes += sizes[-1:] * (count - len(sizes))
    return list(zip(sizes, (*batches, *batches[-1:] * (count - len(batches))), strict=True))


def _other_sizes(program: Program) -> tuple[Size, Size]:
    """Returns a smaller size that stands upright, and a larger one that lies.

    The larger one exceeds the crop of image pooling, too: windows are smaller than the map there.
    """
    (step, plus), own = program.step, program.own_size
    architecture = program.predictor.model.architecture
    crop = architecture.pooling_crop if architecture.image_pooling == "crop" else own
    least = [(side - plus) // step for side in own]
    most = [(max(pair) - plus) // step for pair in zip(own, crop, strict=True)]
    smaller = max(1, least[0] * 3 // 4), max(1, least[1] // 2)
    larger = most[0] * 5 // 4 + 1, most[1] * 3 // 2 + 1
    return tuple(tuple(k * step + plus for k in units) for units in (smaller, larger))


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
      reporter: receives the progress.
    """
    original = predictor.network.forward(InferenceOptions(), only_logits)
    comparison, fill = _Comparison(), predictor.model.architecture.mean_pixel
    calls = list(_batches([fitted(image, size) for image in images], batch))
    for members in (reporter or LoggingReporter()).track(calls, "verifying, batch"):
        padded = np.stack([pad(image, size, fill) for image in members])
        padded = np.concatenate([padded, np.repeat(padded[-1:], batch - len(members), 0)])
        expected, found = np.asarray(original(padded)), exported(padded)
        for image, *pair in zip(members, expected, found, strict=False):
            height, width = image.shape[:2]
            comparison.add(*(part[:height, :width] for part in pair))
    gives_logits = exported.metadata.output["name"] == "logits"
    return Verification(
        len(images),
        size,
        batch,
        comparison.difference if gives_logits else None,
        comparison.logit,
        comparison.same / comparison.pixels,
        comparison.margin,
    )


@dataclasses.dataclass
class _Comparison:
    """Counts over the images compared so far; see `Verification`."""

    difference: float = 0.0
    logit: float = 0.0
    margin: float = 0.0
    same: int = 0
    pixels: int = 0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Counts an image's logits [H, W, classes] and the file's, or its class map [H, W]."""
        labels = found
        if found.ndim == 3:
            labels = found.argmax(-1)
            self.difference = max(self.difference, float(np.abs(found - expected).max()))
        self.logit = max(self.logit, float(np.abs(expected).max()))
        differs = labels != expected.argmax(-1)
        self.same += differs.size - np.count_nonzero(differs)
        self.pixels += differs.size
        if differs.any():
            logits, chosen = expected[differs], labels[differs, None]
            margins = logits.max(-1) - np.take_along_axis(logits, chosen, -1)[:, 0]
            self.margin = max(self.margin, float(margins.max()))


def _batches(images: list[np.ndarray], batch: int) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(images), batch):
        yield images[start : start + batch]
