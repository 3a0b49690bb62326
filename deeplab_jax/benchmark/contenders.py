"""Two codes that do the same work, measured in turns."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Workload:
    """What both sides are to do.

    Attributes:
      network: one of the peer's.
      size: (height, width) of the images in pixels.
      batch_size: images at once.
      dtype: of the computation, float32 or bfloat16; parameters are float32 in both.
      compiled: whether a peer in PyTorch goes through `torch.compile`.
      folded: whether our forward pass has its batch normalisations in the kernels; peers in
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
class Contender:
    """A piece of work that is ready to run.

    Attributes:
      name: of the code that does it.
      run: does it once and returns its result when that is there.
      compile_seconds: from nothing to ready, None where nothing is compiled; of `torch.compile`
        with the first run, which it happens in.
      peak_bytes: memory of a run, parameters included; None: unknown.
    """

    name: str
    run: Callable[[], Any]
    compile_seconds: float | None = None
    peak_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Match:
    """Ours and another code's version of the same work.

    Attributes:
      work: what they do, as `deeplabv3_resnet50 513x513 forward`.
      ours, theirs: the contenders.
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
      `seconds` and `peer_seconds`, medians; `ratio`, the median of the turns' ratios ours/theirs;
      `spread`, its lowest and highest quarter; and what the match tells. JSON-ready.
    """
    both = (match.ours.run, match.theirs.run)
    for run in both:
        run()
    turns = [tuple(map(_seconds, both)) for _ in range(repetitions)]
    ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "work": match.work,
        "peer": match.theirs.name,
        "seconds": ours,
        "peer_seconds": theirs,
        **compare(turns),
        "repetitions": repetitions,
        "operations_per_second": match.operations and match.operations / ours,
        "difference": match.difference,
        "compile_seconds": match.ours.compile_seconds,
        "peer_compile_seconds": match.theirs.compile_seconds,
        "peak_bytes": match.ours.peak_bytes,
        "peer_peak_bytes": match.theirs.peak_bytes,
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


def compiled_contender(name: str, function: Callable, *arguments: Any) -> Contender:
    """Returns a jitted function of these arguments as a contender.

    The arguments lie on the device. Memory is that of arguments, results and temporary arrays, as
    the compiler planned it.
    """
    arguments = jax.device_put(arguments)
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - started
    return Contender(
        name,
        lambda: jax.block_until_ready(compiled(*arguments)),
        seconds,
        planned_bytes(compiled),
    )


def planned_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Returns the memory of a program's arguments, results and temporary arrays in bytes."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def relative_difference(ours: Any, theirs: Any) -> float:
    """Returns the largest difference over the largest of their values."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
