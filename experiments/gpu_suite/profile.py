"""Profile of a program on the device: total time of kernels by kind."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

# Regular expressions for the names of kernels, by kind. The first one that matches determines the
# kind. cuDNN and CUTLASS use the names fprop (forward), dgrad (gradient of the input) and wgrad
# (gradient of the kernel).
KINDS = {
    "convolution, gradient of kernel": r"wgrad|bwd_filter|backward_filter",
    "convolution, gradient of inputs": r"dgrad|bwd_data|backward_data",
    "convolution": r"fprop|conv(?!ert)|implicit_gemm|depthwise",
    "matrix product": r"gemm|nvjet|cublas|cutlass|dot",
    "transpose": r"transpose|nchwtonhwc|nhwctonchw|tensortransform",
    "copy": r"memcpy|memset|copy",
    "reduction": r"reduc",
    "fusion": r"fusion|triton|wrapped",
}
# Number of the slowest kernels to return.
TOP = 20
# Prefix of the names of profiler lines that contain kernels. Other lines of a device repeat these
# kernels, grouped by module or operation.
STREAM = "Stream"


def kind_of(kernel: str) -> str:
    """Returns the kind of a GPU kernel, such as `matrix product`, given the name of the kernel."""
    name = kernel.lower()
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "other")


def summarize(kernels: Iterable[tuple[str, float]], runs: int) -> dict[str, Any]:
    """Sums the times of all kernel calls in a profile, by kernel and by kind of kernel.

    Args:
      kernels: (name, milliseconds) of every call of a kernel.
      runs: number of profiled runs of the program.

    Returns:
      A dictionary:
      - `milliseconds_by_kind`: {kind of kernel: time per run}.
      - `kernels`: the 20 slowest kernels, each with its name, its kind, its time per run and its
        number of calls in all runs.
      - `runs`: the argument `runs`.
    """
    times, calls = Counter(), Counter()
    for name, milliseconds in kernels:
        times[name] += milliseconds / runs
        calls[name] += 1
    kinds = Counter()
    for name, milliseconds in times.items():
        kinds[kind_of(name)] += milliseconds
    top = [
        {"kernel": name[:160], "kind": kind_of(name), "milliseconds": time, "calls": calls[name]}
        for name, time in times.most_common(TOP)
    ]
    return {"milliseconds_by_kind": dict(kinds.most_common()), "kernels": top, "runs": runs}


def profile(run: Callable[[], Any], runs: int = 2) -> dict[str, Any]:
    """Profiles runs of a JAX program after a warm-up run; returns the result of `summarize`."""
    run()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(runs):
                run()
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        return summarize(_kernels(jax.profiler.ProfileData.from_file(str(files[-1]))), runs)


def _kernels(data: Any) -> Iterable[tuple[str, float]]:
    """Yields (name, milliseconds) of every call of a GPU kernel in a profile.

    If the profile contains no GPU, the function yields the calls of the operations that XLA runs on
    the CPU instead.

    Args:
      data: profile, a `jax.profiler.ProfileData`.
    """
    planes = list(data.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for plane in devices or planes:
        for line in plane.lines:
            if line.name.startswith(STREAM) if devices else "XLA" in line.name:
                for event in line.events:
                    yield event.name, event.duration_ns / 1e6
