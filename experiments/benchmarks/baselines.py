"""The codes that ours is measured against, by name, and how both are run in turns.

A module of this package offers `forward(work)` and, where the baseline trains, `training(work)`;
both return a `Match` whose two sides hold the same weights where the baseline's can be converted.
`pytorch` is no baseline, but what those in PyTorch share; `torchvision_data` is the input
pipeline's.
"""

import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.errors import DeepLabError, unknown_name


@dataclasses.dataclass(frozen=True)
class Workload:
    """Work that both sides run.

    Attributes:
      network: one of the baseline's.
      size: (height, width) of the images in pixels.
      batch_size: images at once.
      dtype: of the computation, float32 or bfloat16; parameters are float32 in both.
      compiled: whether a baseline in PyTorch goes through `torch.compile`.
      folded: whether our forward pass has its batch normalisations in the kernels; baselines in
        PyTorch alone.
    """

    network: str
    size: tuple[int, int]
    batch_size: int = 1
    dtype: str = "float32"
    compiled: bool = False
    folded: bool = False

    def title(self, kind: str) -> str:
        """Returns network, kind of work and shapes, as in `resnet_50, forward, 1x513x513`."""
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{self.network}, {kind}, {self.batch_size}x{self.size[0]}x{self.size[1]}{dtype}"


@dataclasses.dataclass(frozen=True)
class Match:
    """Ours and another code's version of the same work.

    Attributes:
      work: what they do, as `deeplabv3_resnet50 513x513 forward`.
      ours, theirs: the two sides, ready to run.
      operations: floating-point operations of it, two a multiply-add, as published counts have
        them; None: not counted.
      difference: largest difference of the results over the largest result; None: not comparable.
    """

    work: str
    ours: Contender
    theirs: Contender
    operations: float | None = None
    difference: float | None = None


def measure(match: Match, repetitions: int) -> dict[str, Any]:
    """Runs both in turns, after one run each that does not count.

    Returns:
      `seconds` and `baseline_seconds`, medians; `ratio`, the median of the turns' ratios
      ours/theirs; `spread`, its lowest and highest quarter; and what the match reports. JSON-ready.
    """
    both = (match.ours.run, match.theirs.run)
    for run in both:
        run()
    turns = [tuple(map(_seconds, both)) for _ in range(repetitions)]
    ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "work": match.work,
        "baseline": match.theirs.name,
        "seconds": ours,
        "baseline_seconds": theirs,
        **compare(turns),
        "repetitions": repetitions,
        "operations_per_second": match.operations and match.operations / ours,
        "difference": match.difference,
        "compile_seconds": match.ours.compile_seconds,
        "baseline_compile_seconds": match.theirs.compile_seconds,
        "peak_bytes": match.ours.peak_bytes,
        "baseline_peak_bytes": match.theirs.peak_bytes,
    }


def compare(turns: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Returns the median of the turns' ratios ours/theirs, and its lowest and highest quarter."""
    ratios = sorted(ours / theirs for ours, theirs in turns)
    quarter = len(ratios) // 4
    spread = [ratios[quarter], ratios[-1 - quarter]]
    return {"ratio": statistics.median(ratios), "spread": spread}


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def relative_difference(ours: Any, theirs: Any) -> float:
    """Returns the largest difference over the largest of their values."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


# Networks in PyTorch run in any dtype and through `torch.compile`, others as they are.
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Another code.

    Attributes:
      networks: that it has, the first by default.
      trained: whether it is trained here.
      pytorch: whether it runs in PyTorch.
    """

    networks: tuple[str, ...]
    trained: bool = False
    pytorch: bool = False


# Baselines by the name of their module in this package.
BASELINES = {
    "straightforward": Baseline(
        ("v3/mobilenet_v2", "v3plus/mobilenet_v2", "v3plus/xception_65"), trained=True
    ),
    "torchvision": Baseline(
        ("deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet101"),
        trained=True,
        pytorch=True,
    ),
    "transformers": Baseline(("mobilenet_v2",), pytorch=True),
    "segmentation_models": Baseline(
        ("resnet50", "resnet101", "mobilenet_v2", "tu-xception65"), trained=True, pytorch=True
    ),
    "keras_hub": Baseline(("resnet_50",)),
    "tflite": Baseline(("mobilenet_v2",)),
    "without_mesh": Baseline(("mobilenet_v2", "resnet_50", "xception_65"), trained=True),
}


def make_match(name: str, work: Workload, training: bool) -> Match:
    """Returns a baseline's and our version of the work, ready to run.

    Args:
      name: of the baseline.
      work: with an empty network for the baseline's first.
      training: training steps instead of forward passes.

    Raises:
      DeepLabError: there is no such baseline or network, the baseline does not do that, or it is
        not installed.
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, BASELINES)
    baseline = BASELINES[name]
    if training and not baseline.trained:
        legal = ", ".join(other for other, entry in BASELINES.items() if entry.trained)
        raise DeepLabError(f"{name} is not trained here; legal: {legal}")
    if work.dtype not in DTYPES:
        raise unknown_name("dtype", work.dtype, DTYPES)
    if not baseline.pytorch and (work.compiled or work.dtype != DTYPES[0]):
        legal = ", ".join(other for other, entry in BASELINES.items() if entry.pytorch)
        raise DeepLabError(
            f"--compiled and --dtype={DTYPES[1]} are for baselines in PyTorch, which {name} is "
            f"not; legal: {legal}"
        )
    work = dataclasses.replace(work, network=work.network or baseline.networks[0])
    if work.network not in baseline.networks:
        raise unknown_name(f"network of {name}", work.network, baseline.networks)
    module = importlib.import_module(f"{__package__}.{name}")
    return module.training(work) if training else module.forward(work)
