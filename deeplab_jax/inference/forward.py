"""The compiled forward pass: scales and flips fused, strategies by stages."""

import contextlib
import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from deeplab_jax import ops
from deeplab_jax.inference import programs
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.inference.padding import Size, scaled_size
from deeplab_jax.models import Architecture, DeepLab
from deeplab_jax.parallel import batch_sharding, sharded_over

Item = TypeVar("Item")

# How often a stage that waits looks whether it should end, in seconds.
LOOK_INTERVAL = 0.1


class Ahead(Generic[Item]):
    """Makes items before they are asked for; to be used as a context and iterated over once."""

    def __init__(self, items: Iterator[Item], waiting: int, *, newest: bool = False) -> None:
        """Starts at once.

        Args:
          items: made in a thread of their own.
          waiting: items that may wait.
          newest: an item drops those that still wait before it.
        """
        self._items, self._newest = items, newest
        # Each entry is (item, error); the last is (None, None).
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(waiting)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yields the items; raises what their making raised."""
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _make(self) -> None:
        error = None
        try:
            for item in self._items:
                if self._newest:
                    with contextlib.suppress(queue.Empty):
                        while True:
                            self._queue.get_nowait()
                if not self._put((item, None)):
                    return
        except BaseException as raised:
            error = raised
        self._put((None, error))

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> bool:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=LOOK_INTERVAL)
                return True
        return False


class Behind(Generic[Item]):
    """Calls a function for one item after the other; a context that ends when all are done."""

    def __init__(self, function: Callable[[Item], None], waiting: int) -> None:
        """Starts at once.

        Args:
          function: is called in a thread of its own.
          waiting: items that may wait; `put` blocks beyond.
        """
        self._function = function
        self._queue: queue.Queue[Item | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hands an item over; raises what an earlier one raised."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:
                    self._error = error


# (class map int32 [N, H, W], logits float32 [N, H, W, num_classes]) -> arrays of N rows.
Finish = Callable[[jax.Array, jax.Array], Any]
# (variables, image uint8 [N, H, W, 3]) -> arrays of N rows.
Forward = Callable[[Any, jax.Array], Any]

MAXIMUM, MEAN = "maximum of logits", "mean of probabilities"
# Probabilities below it count as this much, so that their logarithms are finite.
LEAST = 1e-30


def fusion_rule(architecture: Architecture) -> str:
    """Returns how results are fused: v2 takes the maximum of the logits, v3 and v3+ the mean.

    A network is taken for a DeepLab v2 where it sums scores or was trained on several scales.

    Source: DeepLab v2, section 4.1.1; v3 and v3+ as released.
    """
    like_v2 = architecture.fusion == "sum" or bool(architecture.multi_scale)
    return MAXIMUM if like_v2 else MEAN


def forward_pass(
    model: DeepLab,
    options: InferenceOptions,
    finish: Finish,
    mesh: Mesh | None = None,
) -> Forward:
    """Returns the function from images to what is wanted of their class map and fused logits.

    Prediction and evaluation share it, so that both give a pixel the same class. What `finish`
    leaves unused is not computed.

    Without scales and flips it is one compiled program. With them the network is compiled once a
    scale, and one result at a time is added up, so that memory does not grow with their number.

    Args:
      model: the network, at the output stride that is wanted.
      options: scales and flip are looked at.
      finish: takes the class map and the logits at the images' resolution, which are logarithms
        where probabilities are averaged. Is compiled.
      mesh: devices that share the images, and on which the results stay; None: one device.
    """
    out_shardings = None if mesh is None else batch_sharding(mesh)
    if not options.fuses:

        def forward(variables: Any, image: jax.Array) -> Any:
            with sharded_over(mesh):
                return finish(*model.apply(variables, image, method="class_map_and_logits"))

        compiled = jax.jit(forward, out_shardings=out_shardings)
        # A program of several devices is traced with their mesh.
        if mesh is not None:
            return compiled
        return programs.stored(compiled, model, finish.__qualname__)

    def finish_fused(logits: jax.Array) -> Any:
        return finish(jnp.argmax(logits, axis=-1).astype(jnp.int32), logits)

    finish_fused = jax.jit(finish_fused, out_shardings=out_shardings)
    return lambda variables, image: finish_fused(
        fused_logits(model, options, variables, image, mesh)
    )


def only_class_map(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the class map: the `Finish` of a pass that needs nothing else."""
    del logits
    return class_map


def fused_logits(
    model: DeepLab,
    options: InferenceOptions,
    variables: Any,
    image: jax.Array,
    mesh: Mesh | None = None,
) -> jax.Array:
    """Returns the logits that all scales and flips together give.

    Args:
      model: the network, at the output stride that is wanted.
      options: scales and flip are looked at.
      variables: of the model.
      image: uint8 [N, H, W, 3], padded already.
      mesh: devices that share the images.

    Returns:
      float32 [N, H, W, num_classes].
    """
    rule, network = fusion_rule(model.architecture), _network(model, options.scales)
    flips = (False, True) if options.flip else (False,)
    members = [(scale, mirrored) for scale in options.scales for mirrored in flips]
    if len(members) == 1:
        rule = MAXIMUM
    total = None
    for scale, mirrored in members:
        seen = _mirror(image) if mirrored else image
        logits = _logits_at_scale(variables, seen, model=network, scale=scale, mesh=mesh)
        adding = {"align_corners": model.architecture.align_corners, "rule": rule}
        total = _add(total, logits, size=image.shape[1:3], mirrored=mirrored, **adding)
    return total if rule == MAXIMUM else _logarithm_of_mean(total, len(members))


def _network(model: DeepLab, scales: tuple[float, ...]) -> DeepLab:
    """Returns the model without scales of its own where others are given."""
    if scales == (1.0,) or not model.architecture.multi_scale:
        return model
    return model.clone(architecture=dataclasses.replace(model.architecture, multi_scale=()))


_mirror = jax.jit(lambda image: image[:, :, ::-1])


# Compiled for a model, not for a predictor: strategies that are compared share networks.
@functools.partial(jax.jit, static_argnames=("model", "scale", "mesh"))
def _logits_at_scale(
    variables: Any, image: jax.Array, *, model: DeepLab, scale: float, mesh: Mesh | None
) -> jax.Array:
    """Returns logits [N, h, w, num_classes] at the resolution of the scaled image."""
    if scale != 1:
        size = scaled_size(model, image.shape[1:3], scale)
        image = ops.resize_bilinear(
            image.astype(jnp.float32), size, align_corners=model.architecture.align_corners
        )
    with sharded_over(mesh):
        return model.apply(variables, image, train=False)


@functools.partial(
    jax.jit, static_argnames=("size", "mirrored", "align_corners", "rule"), donate_argnums=0
)
def _add(
    total: jax.Array | None,
    logits: jax.Array,
    *,
    size: Size,
    mirrored: bool,
    align_corners: bool,
    rule: str,
) -> jax.Array:
    """Returns the running maximum of logits, or sum of probabilities, at full size."""
    upright = logits[:, :, ::-1] if mirrored else logits
    full = ops.resize_bilinear(upright, size, align_corners=align_corners)
    if rule == MAXIMUM:
        return full if total is None else jnp.maximum(total, full)
    probabilities = jax.nn.softmax(full, axis=-1)
    return probabilities if total is None else total + probabilities


@functools.partial(jax.jit, static_argnames="count")
def _logarithm_of_mean(total: jax.Array, count: int) -> jax.Array:
    return jnp.log(jnp.maximum(total / count, LEAST))
