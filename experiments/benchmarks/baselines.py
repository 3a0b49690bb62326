"""Baselines by name, and timing of deeplab_jax against them.

A baseline is another implementation of a network. Each key of `BASELINES` names a module of this
package with a function `forward(work)` and, if training steps are supported, a function
`training(work)`. Both functions take a `Workload` and return a `Match`. If the weights of the
baseline can be converted, the network of deeplab_jax has the same weights.

The package also has modules that are not such baselines: for example, `pytorch` contains shared
code of the PyTorch baselines, and `torchvision_data` is a baseline of the input pipeline.
"""

import dataclasses
import importlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.errors import DeepLabError, unknown_name

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Workload:
    """Network, images and precision for which deeplab_jax and a baseline are compared.

    Attributes:
      network: name of the network in the baseline; `BASELINES` lists the names.
      size: (height, width) of the images in pixels.
      batch_size: number of images per batch.
      dtype: data type of the computation, float32 or bfloat16; parameters are always float32.
      compiled: whether a baseline in PyTorch uses `torch.compile`.
      folded: whether deeplab_jax folds batch normalizations into convolutions in the forward pass.
        Only the baselines `torchvision` and `segmentation_models` use this field.
    """

    network: str
    size: tuple[int, int]
    batch_size: int = 1
    dtype: str = "float32"
    compiled: bool = False
    folded: bool = False

    def title(self, kind: str) -> str:
        """Returns a title such as `resnet_50, forward, 1x513x513`.

        Args:
          kind: description of the timed program, such as `forward` or `training step`.
        """
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{self.network}, {kind}, {self.batch_size}x{self.size[0]}x{self.size[1]}{dtype}"


@dataclasses.dataclass(frozen=True)
class Match:
    """Programs of deeplab_jax and of a baseline that do the same work.

    Attributes:
      work: description of the work, such as `deeplabv3_resnet50, forward, 1x513x513`.
      ours, theirs: the programs of deeplab_jax and of the baseline, ready to run.
      operations: floating-point operations of one run of deeplab_jax, 2 per multiply-add; None: not
        counted.
      difference: largest difference between the results, relative to the largest result; None: the
        results cannot be compared.
      baseline_size: numbers of parameters and of floating-point operations of the baseline; None:
        not counted.
      parameters: number of parameters of deeplab_jax; None: not counted.
    """

    work: str
    ours: Contender
    theirs: Contender
    operations: float | None = None
    difference: float | None = None
    baseline_size: tuple[int, float] | None = None
    parameters: int | None = None


def measure(match: Match, repetitions: int) -> dict[str, Any]:
    """Times the two programs of a match alternately, after one warm-up run each.

    Returns:
      A JSON-serializable dict:
      - `seconds`, `baseline_seconds`: median time of a run of deeplab_jax and of the baseline.
      - `ratio`, `interval`: result of `compare`. A pair of times consists of a run of deeplab_jax
        and the next run of the baseline.
      - `operations_per_second`: floating-point operations of deeplab_jax per second, or None.
      - `compile_seconds`, `peak_bytes`: attributes of `match.ours`.
      - `baseline_compile_seconds`, `baseline_peak_bytes`: attributes of `match.theirs`.
      - `work`, `difference`, `parameters`, `operations`: attributes of `match`.
      - `baseline_parameters`, `baseline_operations`: `match.baseline_size`.
      - `baseline`: name of the baseline.
      - `repetitions`: number of timed runs of each program.
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
        "parameters": match.parameters,
        "operations": match.operations,
        "baseline_parameters": match.baseline_size and match.baseline_size[0],
        "baseline_operations": match.baseline_size and match.baseline_size[1],
        "compile_seconds": match.ours.compile_seconds,
        "baseline_compile_seconds": match.theirs.compile_seconds,
        "peak_bytes": match.ours.peak_bytes,
        "baseline_peak_bytes": match.theirs.peak_bytes,
    }


def compare(turns: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Returns statistics of the ratio of times, deeplab_jax / baseline.

    Args:
      turns: pairs of times in seconds, (deeplab_jax, baseline). The two times of a pair were
        measured one directly after the other.

    Returns:
      A dictionary:
      - `ratio`: median of the ratios.
      - `interval`: list of the limits of the 95 % confidence interval of the median, which are two
        of the ratios (order statistics; no distribution is assumed). Fewer than six pairs have no
        such interval; the limits are then the smallest and the largest ratio.
    """
    ratios = sorted(ours / theirs for ours, theirs in turns)
    outside = _outside(len(ratios))
    interval = [ratios[outside], ratios[-1 - outside]]
    return {"ratio": statistics.median(ratios), "interval": interval}


def _outside(count: int) -> int:
    """Returns how many order statistics lie outside each limit of the interval of the median.

    The number of values below the median of the distribution is binomial with probability 1/2.
    """
    outside, tail = 0, 0.0
    while (tail := tail + math.comb(count, outside) / 2**count) <= (1 - CONFIDENCE) / 2:
        outside += 1
    return max(outside - 1, 0)


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def relative_difference(ours: Any, theirs: Any) -> float:
    """Returns the largest absolute difference of two arrays, divided by max |theirs|."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


# Data types of baselines in PyTorch. Other baselines support only float32.
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Baseline:
    """Properties of a baseline.

    Attributes:
      networks: names of the networks of the baseline; the first one is the default.
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
    """Returns programs of deeplab_jax and of a baseline that do the same work, ready to run.

    Args:
      name: name of the baseline.
      work: work to run; if `work.network` is empty, the first network of the baseline is used.
      training: True: training steps. False: forward passes.

    Raises:
      DeepLabError: there is no such baseline or network, the baseline does not support the work, or
        it is not installed.
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, BASELINES)
    baseline = BASELINES[name]
    if training and not baseline.trained:
        legal = ", ".join(other for other, entry in BASELINES.items() if entry.trained)
        raise DeepLabError(
            f"the baseline {name} has no training steps; baselines with training steps: {legal}"
        )
    if work.dtype not in DTYPES:
        raise unknown_name("dtype", work.dtype, DTYPES)
    if not baseline.pytorch and (work.compiled or work.dtype != DTYPES[0]):
        legal = ", ".join(other for other, entry in BASELINES.items() if entry.pytorch)
        raise DeepLabError(
            f"--compiled and --dtype={DTYPES[1]} require a baseline in PyTorch, not {name}; legal "
            f"baselines: {legal}"
        )
    work = dataclasses.replace(work, network=work.network or baseline.networks[0])
    if work.network not in baseline.networks:
        raise unknown_name(f"network of {name}", work.network, baseline.networks)
    module = importlib.import_module(f"{__package__}.{name}")
    return module.training(work) if training else module.forward(work)
