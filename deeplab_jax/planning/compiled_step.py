"""Ahead-of-time compilation of training steps for devices that are not present."""

import contextlib
import dataclasses
import functools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from deeplab_jax.labels import label_dtype
from deeplab_jax.parallel import batch_sharding
from deeplab_jax.training.setup import Run
from deeplab_jax.training.state import TrainState
from deeplab_jax.training.step import make_run_step

OUT_OF_MEMORY = re.compile("Ran out of memory (in memory space hbm|on HBM)")
# Two out-of-memory messages of the compiler: for the whole program, and for its temporaries.
USED = (
    re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm"),
    re.compile(r"required for .*?\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)"),
)
# Without a GPU, the compiler cannot choose tiles for matrix products in Triton and fails on some
# shapes. With this option, matrix products are calls of cuBLAS.
COMPILER_OPTIONS: dict[str, dict[str, str | bool]] = {"gpu": {"xla_gpu_enable_triton_gemm": False}}
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def abstract_arguments(run: Run) -> tuple[TrainState, dict[str, jax.ShapeDtypeStruct]]:
    """Returns the state and the batch of a training step as shapes, dtypes and shardings."""
    config, crop, architecture = run.config, run.augmentation.crop_size, run.model.architecture
    array = functools.partial(jax.ShapeDtypeStruct, sharding=batch_sharding(run.mesh))
    maps = (config.training.batch_size, *crop)
    return run.state_spec.abstract(), {
        "image": array((*maps, architecture.in_channels), architecture.image_dtype),
        "label": array(maps, label_dtype(architecture.num_classes)),
    }


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """Compiled training step.

    Attributes:
      memory: bytes per chip by use (arguments, outputs, temporaries, program), and their `total`;
        only the `total` if the compiler rejects the step as too large.
      usable: bytes per chip that programs can use, from the compiler's out-of-memory message; None
        if the compiler accepts the step.
      fits: False if the compiler rejects the step as too large. The GPU compiler accepts every
        step; `plan` therefore also compares the `total` with the memory of a chip.
      lower_seconds, compile_seconds: wall time of lowering and compilation.
      compile_cpu_seconds: processor time of compilation; unlike wall time, it does not depend on
        other processes.
      text: HLO text of the program; empty if the compiler rejects the step as too large.
    """

    memory: dict[str, int]
    usable: int | None
    fits: bool
    lower_seconds: float
    compile_seconds: float
    compile_cpu_seconds: float
    text: str


def compile_step(run: Run) -> CompiledStep:
    """Compiles the training step of a run for the devices of its mesh."""
    state, batch = abstract_arguments(run)
    step = make_run_step(run, state)
    started = time.perf_counter()
    lowered = step.lower(state, batch)
    lowering = time.perf_counter() - started
    started, processor = time.perf_counter(), time.process_time()
    with _uncached():
        try:
            options = COMPILER_OPTIONS.get(run.mesh.devices.flat[0].platform)
            compiled, refusal = lowered.compile(compiler_options=options), ""
        except jax.errors.JaxRuntimeError as error:
            if not OUT_OF_MEMORY.search(str(error)):
                raise
            compiled, refusal = None, str(error)
    seconds = {
        "lower_seconds": lowering,
        "compile_seconds": time.perf_counter() - started,
        "compile_cpu_seconds": time.process_time() - processor,
    }
    if compiled is None:
        used, usable = read_refusal(refusal)
        return CompiledStep({"total": used}, usable, False, text="", **seconds)
    memory = _memory(compiled.memory_analysis())
    return CompiledStep(memory, None, True, text=compiled.as_text() or "", **seconds)


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Disables the compile cache inside the `with` block, where compilation time is measured."""
    # The type stubs of JAX do not declare its options.
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def read_refusal(message: str) -> tuple[int, int]:
    """Parses the required and the usable bytes from the compiler's out-of-memory message.

    Raises:
      ValueError: the message has an unknown form.
    """
    found = next(filter(None, (form.search(message) for form in USED)), None)
    if found is None:
        raise ValueError(f"unknown out-of-memory message of the compiler: {message[:300]}")
    used, used_unit, usable, usable_unit = found.groups()
    return round(float(used) * UNITS[used_unit]), round(float(usable) * UNITS[usable_unit])


def _memory(analysis: Any) -> dict[str, int]:
    memory = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }
    return memory | {"total": sum(memory.values())}


# Maximum number of compilations in a search, without the one for the configured batch size.
MOST_COMPILATIONS = 6
ESTIMATED = "estimated from one compilation, assuming that the memory per image is constant"


class LargestBatch(NamedTuple):
    """Largest batch that fits into memory.

    Attributes:
      images: largest number of images per shard of the batch, or 0 if not even the smallest legal
        number that training accepts fits (see `batch_unit`). Each shard is on one chip, or on
        several chips if the rows of images are sharded.
      how: description of the search or the estimate.
    """

    images: int
    how: str


def estimated_largest_batch(
    used: int, fixed: int, usable: int, images: int, unit: int = 1
) -> LargestBatch:
    """Extrapolates the largest batch from one compilation.

    Args:
      used: bytes per chip with `images` images.
      fixed: bytes per chip that do not depend on the batch.
      usable: bytes per chip that programs can use.
      images: number of images per shard of the batch in the compiled step.
      unit: the result is rounded down to a multiple of this number; see `batch_unit`.
    """
    per_image = max(used - fixed, 1) / images
    return LargestBatch(max(0, int((usable - fixed) / per_image)) // unit * unit, ESTIMATED)


def searched_largest_batch(
    used: Callable[[int], int | None],
    first: tuple[int, int],
    fixed: int,
    usable: int,
    unit: int = 1,
) -> LargestBatch:
    """Searches for the largest batch that fits, by compiling several batch sizes.

    The search narrows the interval between the largest batch that fits and the smallest batch that
    does not fit. It alternates between interpolation and bisection.

    Args:
      used: function that compiles the step for a number of images per shard of the batch, and
        returns the bytes per chip; None if training refuses this number but accepts larger ones.
      first: (images per shard, bytes per chip) of the first compilation.
      fixed: bytes per chip that do not depend on the batch, for the first guess.
      usable: bytes per chip that programs can use.
      unit: only multiples of this number are tried, see `batch_unit`. `first[0]` must also be a
        multiple of this number.
    """
    known = {0: fixed, first[0]: first[1]}
    refused: set[int] = set()
    for turn in range(MOST_COMPILATIONS + 1):
        fits = max((images for images, size in known.items() if size <= usable), default=0)
        over = min((images for images, size in known.items() if size > usable), default=None)
        if over in (0, fits + unit) or turn == MOST_COMPILATIONS:
            break
        guess = _crossing(known, usable, max(known) if over is None else over)
        if over is not None:
            guess = min(guess if turn % 2 == 0 else (fits + over) // 2, over - unit)
        guess = max(guess // unit * unit, fits + unit)
        size = used(guess)
        if size is None:
            # More images may fit.
            refused.add(guess)
        known[guess] = fixed if size is None else size
    fits = 0 if fits in refused else fits
    bracket = f"{fits} images per shard fit" + ("" if over is None else f", {over} do not")
    if over == 0:
        bracket = "the state alone exceeds the memory"
    return LargestBatch(fits, f"searched with {len(known) - 2} more compilations: {bracket}")


def _crossing(known: dict[int, int], usable: int, end: int) -> int:
    """Returns the number of images that fill the memory, by linear interpolation or extrapolation.

    The line passes through two points of `known`: `end` images, and the next smaller number.

    Args:
      known: bytes per chip, by number of images per shard of the batch. The value for 0 images is
        an estimate.
      usable: bytes per chip that programs can use.
      end: number of images, a key of `known` other than the smallest.
    """
    start = max(images for images in known if images < end)
    slope = max((known[end] - known[start]) / (end - start), 1.0)
    return int(start + (usable - known[start]) / slope)
