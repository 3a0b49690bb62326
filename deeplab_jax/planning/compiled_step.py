"""Compiled training steps for devices that are not present."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

from deeplab_jax.labels import label_dtype
from deeplab_jax.parallel import batch_sharding
from deeplab_jax.training.setup import Run
from deeplab_jax.training.state import TrainState, abstract_state
from deeplab_jax.training.step import make_run_step

OUT_OF_MEMORY = re.compile("Ran out of memory (in memory space hbm|on HBM)")
# The compiler's two ways to say how much was wanted of how much; a single array may be too large.
USED = (
    re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm"),
    re.compile(r"required for .*?\(([\d.]+)([KMG])\) exceeds available HBM \(([\d.]+)([KMG])\)"),
)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def abstract_arguments(run: Run) -> tuple[TrainState, dict[str, jax.ShapeDtypeStruct]]:
    """Returns shapes, dtypes and shardings of the step's state and batch."""
    config = run.config
    state = abstract_state(
        run.model,
        run.optimizer,
        run.mesh,
        crop_size=run.augmentation.crop_size,
        keep_ema=config.training.ema_decay > 0,
        fsdp=config.parallel.fsdp,
    )
    maps = (config.training.batch_size, *run.augmentation.crop_size)
    architecture, sharding = run.model.architecture, batch_sharding(run.mesh)
    arrays = {
        "image": ((*maps, architecture.in_channels), jnp.uint8),
        "label": (maps, label_dtype(architecture.num_classes)),
    }
    return state, {
        name: jax.ShapeDtypeStruct(*array, sharding=sharding) for name, array in arrays.items()
    }


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled step.

    Attributes:
      memory: bytes a chip by use; `total` is what must be there at once.
      usable: bytes of a chip's memory that the compiler gives to programs, if it told.
      fits: whether `total` is there.
      lower_seconds, compile_seconds: on this machine's clock.
      compile_cpu_seconds: the same in processor time, which other programs do not lengthen.
      costs: the compiler's own count.
      text: of the program; empty where it does not fit.
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
    """Compiles the step that a run would train with, for the devices of its mesh."""
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
    return CompiledStep(
        _memory(compiled.memory_analysis()),
        None,
        True,
        costs=_costs(compiled.cost_analysis()),
        text=compiled.as_text(),
        **seconds,
    )


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """A program from the compile cache would hide the time that compilation takes."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def read_refusal(message: str) -> tuple[int, int]:
    """Returns the bytes that a program wanted and those there were, of the compiler's refusal.

    Raises:
      ValueError: the message has another form than the known one.
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


def _costs(analysis: Any) -> dict[str, float]:
    costs = analysis if isinstance(analysis, dict) else analysis[0]
    return {"flops": costs.get("flops", 0.0), "bytes": costs.get("bytes accessed", 0.0)}


# What a search compiles at most, beside the batch that was asked for.
MOST_COMPILATIONS = 6
ESTIMATED = (
    "estimated from one compilation: the state and a gradient stay, all other memory grows with "
    "the batch"
)


class LargestBatch(NamedTuple):
    """The answer, and how it was found.

    Attributes:
      images: that each part of the batch has room for, of one chip or of those that share rows; 0
        where not even one fits.
      how: in words.
    """

    images: int
    how: str


def estimated_largest_batch(used: int, fixed: int, usable: int, images: int) -> LargestBatch:
    """Returns the largest batch by proportion.

    Args:
      used: bytes a chip at `images` images.
      fixed: of them, those that any batch needs.
      usable: bytes a chip has.
      images: that `used` is of.
    """
    an_image = max(used - fixed, 1) / images
    return LargestBatch(max(0, int((usable - fixed) / an_image)), ESTIMATED)


def searched_largest_batch(
    used: Callable[[int], int], first: tuple[int, int], fixed: int, usable: int
) -> LargestBatch:
    """Returns the largest batch that the compiler finds room for.

    Tries are where the line through the best that fits and the least that does not reaches the
    limit, and midway between them, in turns.

    Args:
      used: compiles for a number of images and returns bytes a chip.
      first: (images, bytes) of a compilation that has been done.
      fixed: bytes that any batch needs, for the first guess.
      usable: bytes a chip has.
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
    """Returns the images at which the line through `end` and the point before it is full."""
    start = max(images for images in known if images < end)
    slope = max((known[end] - known[start]) / (end - start), 1.0)
    return int(start + (usable - known[start]) / slope)
