"""The exported function: from images to class maps or logits, at fixed or open sizes."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.inference import Predictor
from deeplab_jax.inference.padding import round_up, size_step
from deeplab_jax.models import DeepLab, fold

Size = tuple[int, int]

# For networks that no size came with: the papers' crop.
DEFAULT_SIZE = (513, 513)


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Inputs and outputs of the exported function.

    Attributes:
      size: (H, W) of the images in pixels; None: any that suits the network.
      batch: number of images; None: any.
      preprocessing: True: it takes RGB 0..255 as uint8; False: float32, normalised already as the
        metadata tell.
      argmax: True: it gives the class of every pixel, int32 [N, H, W]; False: logits, float32
        [N, H, W, num_classes].
      portable: plain operations alone, as other runtimes want them; False, of StableHLO: each
        platform's own, of which CPUs' are many times faster.
    """

    size: Size | None = None
    batch: int | None = None
    preprocessing: bool = True
    argmax: bool = True
    portable: bool = True

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
          DeepLabError: one is below 1.
        """
        if min(self.size or (1, 1)) < 1 or (self.batch is not None and self.batch < 1):
            raise DeepLabError(
                f"size {self.size} and batch {self.batch} are not legal; give numbers from 1 on"
            )

    @property
    def input_dtype(self) -> jnp.dtype:
        """Of the images."""
        return jnp.dtype(jnp.uint8 if self.preprocessing else jnp.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A trained network as it leaves.

    Attributes:
      predictor: whose network it is.
      options: what the function takes and gives.
      function: images [N, H, W, in_channels] → class maps or logits; its weights are constants, its
        batch normalisations folded. It is to be traced by `trace`.
    """

    predictor: Predictor
    options: ExportOptions
    function: Callable[[jax.Array], jax.Array]

    @property
    def step(self) -> tuple[int, int]:
        """Pixels between two sizes that suit the network, and what is added to their multiples."""
        model = self.predictor.model
        architecture = model.architecture
        step = size_step(model.architecture, architecture.multi_scale or (1.0,))
        return step, int(architecture.align_corners)

    @property
    def own_size(self) -> Size:
        """The size that the options fix, else the one that the network is made for, padded."""
        if self.options.size:
            return self.options.size
        wanted = self.predictor.inference_size or DEFAULT_SIZE
        return round_up(self.predictor.model, self.step[0], wanted)

    def input_shape(self) -> tuple[int, int, int, int]:
        """Returns a concrete shape that the function takes."""
        channels = self.predictor.model.architecture.in_channels
        return (self.options.batch or 1, *self.own_size, channels)


def make_program(predictor: Predictor, options: ExportOptions) -> Program:
    """Returns the function to be exported.

    Args:
      predictor: of the trained network; how it applies it (scales, tiles, CRF) stays behind.
      options: what the function takes and gives.
    """
    model, variables = fold(predictor.model, predictor.variables)
    model = _leaving(model, options)
    # On the host: what is traced with them becomes constants.
    variables = jax.device_get(variables)

    def function(image: jax.Array) -> jax.Array:
        with _operations(options):
            logits = model.apply(variables, image, train=False)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32) if options.argmax else logits

    return Program(predictor, options, function)


def _operations(options: ExportOptions) -> contextlib.AbstractContextManager[None]:
    return ops.dispatching(export=True) if options.portable else contextlib.nullcontext()


def _leaving(model: DeepLab, options: ExportOptions) -> DeepLab:
    """Returns the network without what only training needs, computing in float32."""
    changes: dict[str, Any] = {"aux_head": False, "dtype": "float32"}
    if not options.preprocessing:
        changes["preprocessing"] = "none"
    return model.clone(architecture=dataclasses.replace(model.architecture, **changes))


def suits(size: Size, step: int, plus: int) -> bool:
    """Returns whether both sides are k · step + plus, k ≥ 1."""
    return all(side > plus and (side - plus) % step == 0 for side in size)


def input_specification(program: Program) -> jax.ShapeDtypeStruct:
    """Returns shape and dtype of the images; what is open is a symbol.

    The batch is `N`, a size k · step + 1 with whole k (k · step where corners do not align).
    """
    step, plus = program.step
    options, channels = program.options, program.predictor.model.architecture.in_channels
    names, constraints = ["N" if options.batch is None else str(options.batch)], []
    for axis, letter in enumerate("hw"):
        if options.size:
            names.append(str(options.size[axis]))
            continue
        names.append(f"{step}*{letter}+{plus}" if plus else f"{step}*{letter}")
        constraints.append(f"{letter} >= 1")
    shape = export.symbolic_shape(", ".join([*names, str(channels)]), constraints=constraints)
    return jax.ShapeDtypeStruct(shape, options.input_dtype)


def check_suits(size: Size, step: int, plus: int) -> None:
    """Checks a size against those that a file with open sizes takes.

    Args:
      size: (H, W) in pixels.
      step, plus: k · step + plus is legal, k ≥ 1.

    Raises:
      DeepLabError: it is none of them; names the nearest.
    """
    if suits(size, step, plus):
        return
    below = [max(1, (side - plus) // step) * step + plus for side in size]
    above = [max(1, -(-(side - plus) // step)) * step + plus for side in size]
    nearest = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in (below, above)))
    raise DeepLabError(
        f"{size[0]}x{size[1]} does not suit this network: height and width must be k · {step}"
        f"{f' + {plus}' if plus else ''} with k from 1 on; the nearest: {nearest}"
    )


@contextmanager
def open_sizes(program: Program) -> Iterator[None]:
    """Says what to do where the tracing of open sizes fails."""
    try:
        yield
    except Exception as error:
        if program.options.size or isinstance(error, DeepLabError):
            raise
        height, width = program.own_size
        raise DeepLabError(
            f"the sizes of this network cannot be left open ({type(error).__name__}); "
            f"give one, as in --size={height}x{width}"
        ) from error
