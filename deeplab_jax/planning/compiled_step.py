"""Compiled training steps for devices that are not present."""

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
# Two forms of the compiler's message: for the whole program, and for its temporaries.
USED = (
    re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm"),
    re.compile(r"required for .*?\(([\d.]+)([KMG])\) exceeds available HBM \(([\d.]+)([KMG])\)"),
)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def abstract_arguments(run: Run) -> tuple[TrainState, dict[str, jax.ShapeDtypeStruct]]:
    """Returns shapes, dtypes and shardings of the step's state and batch."""
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
      memory: bytes per chip by use; `total` is required at once.
      usable: bytes of a chip's memory that programs can use, if the compiler reported it.
      fits: whether the step fits in the memory.
      lower_seconds, compile_seconds: wall time of lowering and compilation.
      compile_cpu_seconds: processor time of compilation, which other processes do not affect.
      costs: operations and bytes counted by the compiler.
      text: text of the program; empty where it does not fit.
    """

    memory: dict[str, int]
    usable: int | None
    fits: bool
    lower_seconds: float
    compile_seconds: float
    compile_cpu_seconds: float
    costs: dict[str, float]
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
            compiled, refusal = lowered.compile(), ""
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
        return CompiledStep({"total": used}, usable, False, costs={}, text="", **seconds)
    memory, found = _memory(compiled.memory_analysis()), compiled.cost_analysis()
    costs = {"flops": found.get("flops", 0.0), "bytes": found.get("bytes accessed", 0.0)}
    return CompiledStep(memory, None, True, costs=costs, text=compiled.as_text(), **seconds)


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Disables the compile cache, which would hide the compilation time."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def read_refusal(message: str) -> tuple[int, int]:
    """Returns the required and the usable bytes from the compiler's out-of-memory message.

    Raises:
      ValueError: the message has an unknown form.
    """
    found = next(filter(None, (form.search(message) for form in USED)), None)
    if found is None:
        raise ValueError(f"unknown form of the compiler's message: {message[:300]}")
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


# Maximum number of compilations of a search, after that of the configured batch.
MOST_COMPILATIONS = 6
ESTIMATED = (
    "estimated from one compilation, with memory beside the state in proportion to the batch"
)


class LargestBatch(NamedTuple):
    """Largest batch that fits in memory.

    Attributes:
      images: largest number of images on one chip, or on the chips that share the rows of an image;
        0 where not even one fits.
      how: description of the search or the estimate.
    """

    images: int
    how: str


def estimated_largest_batch(used: int, fixed: int, usable: int, images: int) -> LargestBatch:
    """Returns the largest batch by proportion.

    Args:
      used: bytes per chip with `images` images.
      fixed: bytes per chip that any batch requires.
      usable: bytes per chip that programs can use.
      images: number of images of the compiled step.
    """
    per_image = max(used - fixed, 1) / images
    return LargestBatch(max(0, int((usable - fixed) / per_image)), ESTIMATED)


def searched_largest_batch(
    used: Callable[[int], int], first: tuple[int, int], fixed: int, usable: int
) -> LargestBatch:
    """Returns the largest batch that compiles within the memory.

    Interpolates between the largest known batch that fits and the smallest that does not, and
    bisects, in turns.

    Args:
      used: function that compiles for a number of images and returns the bytes per chip.
      first: (images, bytes) of the first compilation.
      fixed: bytes per chip that any batch requires, for the first guess.
      usable: bytes per chip that programs can use.
    """
    known = {0: fixed, first[0]: first[1]}
    for turn in range(MOST_COMPILATIONS + 1):
        fits = max((images for images, size in known.items() if size <= usable), default=0)
        over = min((images for images, size in known.items() if size > usable), default=None)
        if over in (0, fits + 1) or turn == MOST_COMPILATIONS:
            break
        guess = _crossing(known, usable, max(known) if over is None else over)
        if over is not None:
            guess = min(guess if turn % 2 == 0 else (fits + over) // 2, over - 1)
        guess = max(guess, fits + 1)
        known[guess] = used(guess)
    bracket = f"{fits} fit" + ("" if over is None else f", {over} do not")
    return LargestBatch(fits, f"searched with {len(known) - 2} more compilations: {bracket}")


def _crossing(known: dict[int, int], usable: int, end: int) -> int:
    """Returns the images at which the line through `end` and the point before reaches `usable`."""
    start = max(images for images in known if images < end)
    slope = max((known[end] - known[start]) / (end - start), 1.0)
    return int(start + (usable - known[start]) / slope)
