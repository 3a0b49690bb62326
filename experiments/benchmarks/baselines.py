"""Baselines by name, and timing of deeplab_jax against them.

Each baseline is a module of this package with a function `forward(work)` and, if it can be trained,
`training(work)`. Both return a `Match`, whose two sides have the same weights if those of the
baseline can be converted. The modules `pytorch` (shared by baselines in PyTorch) and
`torchvision_data` (for the input pipeline) are not baselines of networks.
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
    """Work that both sides of a comparison run.

    Attributes:
      network: name of a network of the baseline.
      size: (height, width) of the images in pixels.
      batch_size: number of images per batch.
      dtype: data type of the computation, float32 or bfloat16; parameters are float32 in both.
      compiled: whether a baseline in PyTorch uses `torch.compile`.
      folded: whether batch normalizations are folded in the forward pass of deeplab_jax; only for
        baselines in PyTorch.
    """

    network: str
    size: tuple[int, int]
    batch_size: int = 1
    dtype: str = "float32"
    compiled: bool = False
    folded: bool = False

    def title(self, kind: str) -> str:
        """Returns a title such as `resnet_50, forward, 1x513x513`."""
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{self.network}, {kind}, {self.batch_size}x{self.size[0]}x{self.size[1]}{dtype}"


@dataclasses.dataclass(frozen=True)
class Match:
    """The same work in deeplab_jax and in a baseline.

    Attributes:
      work: description of the work, such as `deeplabv3_resnet50 513x513 forward`.
      ours, theirs: deeplab_jax and the baseline, ready to run.
      operations: number of floating-point operations, 2 per multiply-add; None: not counted.
      difference: largest difference of the results, relative to the largest result; None: the
        results are not comparable.
    """

    work: str
    ours: Contender
    theirs: Contender
    operations: float | None = None
    difference: float | None = None


def measure(match: Match, repetitions: int) -> dict[str, Any]:
    """Times both sides of a match alternately, after one warm-up run each.

    Returns:
      A JSON-serializable dict with the medians `seconds` and `baseline_seconds`, the `ratio` and
      `spread` of `compare`, and facts about the match.
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
    """Returns statistics of the ratios ours/theirs over pairs of times.

    Returns:
      `ratio`, the median, and `spread`, the lower and the upper quartile.
    """
    ratios = sorted(ours / theirs for ours, theirs in turns)
    quarter = len(ratios) // 4
    spread = [ratios[quarter], ratios[-1 - quarter]]
    return {"ratio": statistics.median(ratios), "spread": spread}


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def relative_difference(ours: Any, theirs: Any) -> float:
    """Returns the largest absolute difference, relative to the largest absolute value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


# Data types of baselines in PyTorch. The others only run in the first one, without `torch.compile`.
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Baseline of the benchmarks.

    Attributes:
      networks: names of its networks; the first one is the default.
      trained: whether training steps are supported.
      pytorch: whether the baseline is implemented in PyTorch.
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
        (
            *("resnet50", "resnet101", "mobilenet_v2", "tu-xception65"),
            *("tu-convnext_tiny", "tu-efficientnet_lite0", "tu-tf_efficientnetv2_s"),
        ),
        trained=True,
        pytorch=True,
    ),
    "keras_hub": Baseline(("resnet_50",)),
    "tflite": Baseline(("mobilenet_v2",)),
    "without_mesh": Baseline(("mobilenet_v2", "resnet_50", "xception_65"), trained=True),
}


def make_match(name: str, work: Workload, training: bool) -> Match:
    """Prepares the same work in deeplab_jax and in a baseline.

    Args:
      name: name of the baseline.
      work: work to run; an empty network means the first one of the baseline.
      training: run training steps; otherwise forward passes.

    Raises:
      DeepLabError: there is no such baseline or network, the baseline does not support the work, or
        it is not installed.
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, BASELINES)
    baseline = BASELINES[name]
    if training and not baseline.trained:
        legal = ", ".join(other for other, entry in BASELINES.items() if entry.trained)
        raise DeepLabError(f"training steps of {name} are not supported; legal: {legal}")
    if work.dtype not in DTYPES:
        raise unknown_name("dtype", work.dtype, DTYPES)
    if not baseline.pytorch and (work.compiled or work.dtype != DTYPES[0]):
        legal = ", ".join(other for other, entry in BASELINES.items() if entry.pytorch)
        raise DeepLabError(
            f"--compiled and --dtype={DTYPES[1]} require a baseline in PyTorch, not {name}; legal: "
            f"{legal}"
        )
    work = dataclasses.replace(work, network=work.network or baseline.networks[0])
    if work.network not in baseline.networks:
        raise unknown_name(f"network of {name}", work.network, baseline.networks)
    module = importlib.import_module(f"{__package__}.{name}")
    return module.training(work) if training else module.forward(work)
