"""Speed-up by each fast path of `deeplab_jax.ops`, in a whole network.

A fast path is an implementation of an operation that is faster than its reference implementation in
some cases. `python -m experiments.benchmarks fast_paths` times a network with the fast path and
with the reference, alternately. No other program should run on the machine.
"""

import contextlib
import dataclasses
import importlib
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import jax
import numpy as np

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.errors import unknown_name
from deeplab_jax.models import DeepLab, create_model
from deeplab_jax.models.deeplab import fold
from deeplab_jax.ops.xla_convolution import NO_PADDING, Window, xla_convolution
from deeplab_jax.training.state import with_variables
from experiments.benchmarks.baselines import Match, measure, relative_difference
from experiments.gpu_suite.operations import convolution_by_channel, xla_gradient

NUM_CLASSES = 21

# Imported by name, because the attribute `convolution` of the package is a function.
CONVOLUTION, DEPTHWISE, INTEGERS, JOINED, RESIZE, RESIZED_ROWS = (
    importlib.import_module(f"deeplab_jax.ops.{name}")
    for name in ("convolution", "depthwise", "integers", "joined_maps", "resize", "resized_rows")
)


def _convolved(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return xla_convolution(inputs, kernel, Window(1, (1, 1), NO_PADDING, stride))


def _convolved_by_channel(_: Any, window: Window, *operands: jax.Array) -> jax.Array:
    return convolution_by_channel(window, *operands)


def _reference(reference: Any, cpu: Any, *operands: Any) -> jax.Array:
    return reference(*operands)


@dataclasses.dataclass(frozen=True)
class FastPath:
    """A fast path, and the network and work for which it is timed.

    Attributes:
      network: ARCHITECTURE/BACKBONE.
      work: `training` (a training step), `forward` (images to logits) or `class_map` (images to
        class maps).
      replaced: triples (module, attribute, reference). The fast path is disabled by setting each
        attribute to its reference.
      size: (height, width) of the images in pixels.
      batch_size: number of images per batch.
      keywords: keywords of `create_model`.
    """

    network: str
    work: str
    replaced: tuple[tuple[Any, str, Any], ...]
    size: tuple[int, int]
    batch_size: int = 1
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def switched_off(self) -> Iterator[None]:
        """Disables the fast path for programs that are traced within the `with` block."""
        jax.clear_caches()
        with contextlib.ExitStack() as stack:
            for replacement in self.replaced:
                stack.enter_context(mock.patch.object(*replacement))
            yield
        jax.clear_caches()


_TRAINING = partial(
    FastPath, "deeplab_v3plus/mobilenet_v2", "training", size=(257, 257), batch_size=4
)
_FORWARD = partial(FastPath, "deeplab_v3/mobilenet_v2", "forward", size=(513, 513))

FAST_PATHS = {
    "pointwise products": _TRAINING(((CONVOLUTION, "_pointwise", _convolved),)),
    "kernel gradient in bands": _TRAINING(
        (
            (CONVOLUTION, "kernel_gradient", xla_gradient),
            (CONVOLUTION, "_mirrored", CONVOLUTION._transposed),
        )
    ),
    "convolution at the coarse size": _TRAINING(((JOINED, "LEAST_UPSAMPLING", math.inf),)),
    "depthwise gradient in bands": _TRAINING(
        ((DEPTHWISE, "gradient_in_bands", DEPTHWISE.gradient_at_once),)
    ),
    "depthwise sum of shifts": _FORWARD(((DEPTHWISE, "shifted_products", _convolved_by_channel),)),
    "valid region": FastPath(
        "deeplab_v3/resnet_50",
        "forward",
        ((CONVOLUTION, "LARGEST_FRACTION", -1.0),),
        (513, 513),
        keywords={"output_stride": 8},
    ),
    "resizing from neighbors": FastPath(
        "deeplab_v3plus/timm/tf_efficientnet_lite0",
        "forward",
        ((RESIZE, "dispatch", _reference),),
        (513, 513),
        keywords={"separable": True},
    ),
    "resizing from neighbors in training": _TRAINING(((RESIZE, "dispatch", _reference),)),
    "argmax in one loop": FastPath(
        "deeplab_v3/mobilenet_v2",
        "class_map",
        ((RESIZED_ROWS, "dispatch", _reference),),
        (257, 257),
        keywords={"depth_multiplier": 0.5},
    ),
    "integers as floats": _FORWARD(
        ((INTEGERS, "dispatch", _reference),), keywords={"quantization": "int8"}
    ),
}


def measure_paths(name: str, repetitions: int) -> dict[str, Any]:
    """Times networks with and without each fast path.

    Args:
      name: name of a fast path; empty: all.
      repetitions: number of timed runs with and without each fast path.

    Returns:
      {name of a fast path: results}, JSON-serializable. The results of a fast path are the
      dictionary of `baselines.measure`, where the baseline is the network with the reference, and
      the entry `gain`: 1 / `ratio`, that is, time with the reference / time with the fast path.

    Raises:
      DeepLabError: there is no such fast path.
    """
    if name and name not in FAST_PATHS:
        raise unknown_name("fast path", name, FAST_PATHS)
    rows = {}
    for each in [name] if name else FAST_PATHS:
        path = FAST_PATHS[each]
        fast = contender(path, each)
        with path.switched_off():
            reference = contender(path, "reference")
        height, width = path.size
        work = f"{path.network}, {path.work}, {path.batch_size}x{height}x{width}"
        difference = relative_difference(fast.run(), reference.run())
        row = measure(Match(work, fast, reference, difference=difference), repetitions)
        rows[each] = row | {"gain": 1 / row["ratio"]}
    return rows


def contender(path: FastPath, name: str) -> Contender:
    """Compiles the program in which a fast path is timed, and returns it, ready to run.

    In a `with` block of `FastPath.switched_off`, the program is compiled without the fast path.

    Args:
      path: fast path, with the network and the work of the program.
      name: name of the program in the results.
    """
    lowered, arguments = lower(path)
    started = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    kept = [arguments]

    def run() -> Any:
        results = compiled(*kept[0])
        if path.work == "training":
            kept[0] = results[0], kept[0][1]
            return float(results[1]["loss"])
        return jax.block_until_ready(results)

    return Contender(name, run, seconds, ours.planned_bytes(compiled))


def lower(path: FastPath) -> tuple[jax.stages.Lowered, tuple[Any, Any]]:
    """Lowers the program in which a fast path is timed; returns it and its two arguments."""
    architecture, keywords = ours.split_network(path.network)
    model = create_model(architecture, num_classes=NUM_CLASSES, **keywords, **path.keywords)
    batch = ours.random_batch(path.batch_size, path.size, NUM_CLASSES)
    if path.work == "training":
        step, optimizer = ours.make_step(model, 0.01)
        variables = jax.tree.map(jax.numpy.array, ours.made_variables(model))
        arguments = with_variables(variables, optimizer, False), jax.device_put(batch)
        return step.lower(*arguments), arguments
    model, variables = fold(model, _variables(model))
    arguments = jax.device_put((variables, batch["image"]))
    method = "class_map" if path.work == "class_map" else "__call__"
    program = jax.jit(lambda variables, image: model.apply(variables, image, method=method))
    return program.lower(*arguments), arguments


def _variables(model: DeepLab) -> Any:
    if model.form.kind != "int8":
        return ours.made_variables(model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 33, 33, 3), np.uint8))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
