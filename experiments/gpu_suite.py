"""Times the kernel gradients of atrous convolutions, each candidate alone, on the device at hand.

    python -m experiments.gpu_suite --output=DIR [--toy]

One JSON row is written after every measurement. A second call with the same output skips what is
there already.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from deeplab_jax.ops.kernel_gradient import CANDIDATES
from deeplab_jax.ops.xla_convolution import xla_convolution

SECONDS = 480
# Batch, side, channels, features, rate: ResNet-101 at output stride 8 and 16, 513 × 513 pixels.
SHAPES = [
    (16, 65, 256, 256, 2),
    (16, 65, 512, 512, 4),
    (16, 65, 2048, 256, 12),
    (16, 65, 2048, 256, 24),
    (16, 65, 2048, 256, 36),
    (16, 33, 512, 512, 2),
    (16, 33, 2048, 256, 6),
    (16, 33, 2048, 256, 12),
    (16, 33, 2048, 256, 18),
]
TOY_SHAPES = [(1, 9, 4, 3, 2), (1, 7, 3, 4, 3)]


def own_gradient(inputs, kernel, cotangent, rates, padding) -> jax.Array:
    """Returns the kernel's gradient as XLA derives it; arguments as in `ops.kernel_gradient`."""

    def convolve(kernel: jax.Array) -> jax.Array:
        return xla_convolution(inputs, kernel, stride=1, rates=rates, padding=padding)

    return jax.linear_transpose(convolve, kernel)(cotangent)[0]


def measure(candidate: Callable[..., jax.Array], shape: tuple[int, ...], calls: int) -> dict:
    """Returns the median milliseconds of one call at a shape, and the seconds of compilation.

    Random bfloat16 numbers; each of the `calls` ends before the next starts, so the host's time
    of a call is included.
    """
    batch, side, channels, features, rate = shape
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = (batch, side, side, channels), (3, 3, channels, features), (batch, side, side, features)
    operands = [
        jax.random.normal(key, size, jnp.bfloat16) for key, size in zip(keys, sizes, strict=True)
    ]
    padding = ((rate, rate), (rate, rate))
    start = time.perf_counter()
    program = jax.jit(lambda *maps: candidate(*maps, (rate, rate), padding))
    compiled = program.lower(*operands).compile()
    compilation = time.perf_counter() - start
    jax.block_until_ready(compiled(*operands))
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*operands))
        times.append(time.perf_counter() - start)
    milliseconds = 1000 * statistics.median(times)
    return {"milliseconds": milliseconds, "compilation_seconds": compilation, "calls": calls}


def append(path: Path, row: dict[str, Any]) -> None:
    """Appends a row as one line of JSON and waits until it is on disk."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def measured(path: Path) -> set[tuple[Any, ...]]:
    """Returns (candidate, *shape) of every whole row; a line that a cut left unfinished is none."""
    if not path.exists():
        return set()
    text = path.read_text()
    if text and not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["candidate"], *row["shape"]) for row in rows}


def run(output: Path, shapes: list[tuple[int, ...]], calls: int, seconds: float) -> None:
    """Measures every candidate at every shape that `output` lacks, until the time is up."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "kernel_gradients.jsonl"
    deadline = time.monotonic() + seconds
    done = measured(path)
    machine = {"device": jax.devices()[0].device_kind, "backend": jax.default_backend()}
    machine |= {"jax": jax.__version__, "python": platform.python_version()}
    for shape in shapes:
        for name, candidate in {"xla": own_gradient, **CANDIDATES}.items():
            if (name, *shape) in done:
                continue
            if time.monotonic() > deadline:
                print("The time is up: call again with the same --output to go on.")
                return
            row = {"candidate": name, "shape": shape, **measure(candidate, shape, calls), **machine}
            append(path, row)
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="directory of the rows")
    parser.add_argument("--toy", action="store_true", help="tiny shapes, two calls, for CPUs")
    arguments = parser.parse_args()
    shapes, calls = (TOY_SHAPES, 2) if arguments.toy else (SHAPES, 20)
    run(arguments.output, shapes, calls, SECONDS)


if __name__ == "__main__":
    main()
