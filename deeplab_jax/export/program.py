"""Makes the function to export, which maps images to classes or logits."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, floor
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError, check_name
from deeplab_jax.inference import Predictor
from deeplab_jax.inference.padding import Grid, Size, size_grid
from deeplab_jax.models import fold

# Export size (H, W), in pixels, of networks without an inference size: the crop of the papers.
DEFAULT_SIZE = (513, 513)
DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Inputs and outputs of the exported function.

    Attributes:
      size: (H, W) of the images in pixels; None: any legal size of the network.
      batch: number of images per call; None: any.
      preprocessing: whether the function normalizes its input. True: the input is pixels (uint8
        RGB, or other bands). False: the input is float32, normalized as `Metadata.input` states.
      argmax: whether the function returns the class of every pixel, int32 [N, H, W]. False: it
        returns logits, float32 [N, H, W, num_classes].
      portable: True: only operations that all runtimes and platforms support. False (StableHLO
        only): the fastest implementation for each platform, which is many times faster on CPUs.
      dtype: dtype of weights and most computations, float32 or float16 (not in StableHLO). TFLite
        runtimes may compute in float32 if the weights are float16. The dtypes of input and output
        do not change. The function is traced in float32; the writer of the file converts it.
    """

    size: Size | None = None
    batch: int | None = None
    preprocessing: bool = True
    argmax: bool = True
    portable: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Checks size, batch and dtype.

        Raises:
          DeepLabError: the size or the batch is below 1, or the dtype is unknown.
        """
        check_name("dtype", self.dtype, DTYPES)
        if min(*(self.size or (1, 1)), 1 if self.batch is None else self.batch) < 1:
            raise DeepLabError(
                f"height, width and batch must be at least 1, got size={self.size} and "
                f"batch={self.batch}; for a variable size or batch, give None"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Function to export, made from a trained network.

    Attributes:
      predictor: predictor of the network.
      options: inputs and outputs of the function.
      function: maps images [N, H, W, in_channels] to class maps or logits. The weights are
        constants, and batch normalization is folded.
    """

    predictor: Predictor
    options: ExportOptions
    function: Callable[[jax.Array], jax.Array]

    @property
    def input_dtype(self) -> jnp.dtype:
        """Dtype of the input: float32 if the caller normalizes images, else the pixels' dtype."""
        own = self.predictor.model.architecture.image_dtype
        return jnp.dtype(own if self.options.preprocessing else jnp.float32)

    @property
    def step(self) -> Grid:
        """`Grid` (step, plus) in pixels: legal heights and widths are k · step + plus, k ≥ 1."""
        return size_grid(self.predictor.model.architecture)

    @property
    def own_size(self) -> Size:
        """The size (H, W) of the images: `options.size`, or the default if it is None.

        The default is the network's inference size (513×513 if the network has none), rounded up to
        a legal size.
        """
        if self.options.size:
            return self.options.size
        wanted = self.predictor.inference_size or DEFAULT_SIZE
        return self.step.round_up(wanted)


def make_program(predictor: Predictor, options: ExportOptions) -> Program:
    """Returns the function to export.

    Args:
      predictor: predictor of the trained network; its options (scales, tiles, CRF) are ignored.
      options: inputs and outputs of the function.
    """
    model, variables = fold(predictor.model, predictor.variables)
    changes: dict[str, Any] = {"aux_head": False, "dtype": "float32"}
    if not options.preprocessing:
        changes["preprocessing"] = "none"
    model = model.clone(architecture=dataclasses.replace(model.architecture, **changes))
    # Variables must be on the host to become constants of the traced function.
    variables = jax.device_get(variables)

    def function(image: jax.Array) -> jax.Array:
        with ops.dispatching(export=options.portable):
            logits = model.apply(variables, image, train=False)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32) if options.argmax else logits

    return Program(predictor, options, function)


def suits(size: Size, step: int, plus: int) -> bool:
    """Returns whether height and width are k · step + plus with k ≥ 1."""
    return all(side > plus and (side - plus) % step == 0 for side in size)


def input_specification(program: Program) -> jax.ShapeDtypeStruct:
    """Returns shape and dtype of the images, with symbolic dimensions for variable sizes.

    A variable batch size is the symbol `N`. A variable height is h · step + plus, and a variable
    width is w · step + plus, where `h` and `w` are symbols, and (step, plus) is `Program.step`.
    """
    (step, plus), options = program.step, program.options
    sides = options.size or [f"{step}*{letter}" + (f"+{plus}" if plus else "") for letter in "hw"]
    shape = [options.batch or "N", *sides, program.predictor.model.architecture.in_channels]
    constraints = () if options.size else ("h >= 1", "w >= 1")
    symbolic = export.symbolic_shape(", ".join(map(str, shape)), constraints=constraints)
    return jax.ShapeDtypeStruct(symbolic, program.input_dtype)


def check_suits(size: Size, step: int, plus: int) -> None:
    """Checks that an exported file with variable sizes supports a size.

    Args:
      size: (H, W) in pixels.
      step, plus: legal sizes are k · step + plus with k ≥ 1.

    Raises:
      DeepLabError: the size is illegal. The message states the nearest legal sizes.
    """
    if suits(size, step, plus):
        return
    ratios = [(side - plus) / step for side in size]
    near = [[max(1, rounded(ratio)) * step + plus for ratio in ratios] for rounded in (floor, ceil)]
    nearest = " or ".join(dict.fromkeys(f"{height}x{width}" for height, width in near))
    raise DeepLabError(
        f"images of {size[0]}x{size[1]} pixels are not supported: height and width must be "
        f"k · {step}{f' + {plus}' if plus else ''} for an integer k ≥ 1; nearest sizes: {nearest}"
    )


@contextmanager
def open_sizes(program: Program) -> Iterator[None]:
    """Context manager for tracing a program; raises an error if the network needs a fixed size.

    Raises:
      DeepLabError: tracing fails, and the image sizes are variable (`options.size` is None). The
        network then does not support variable sizes, and the message suggests a fixed size.
    """
    try:
        yield
    except Exception as error:
        if program.options.size or isinstance(error, DeepLabError):
            raise
        height, width = program.own_size
        raise DeepLabError(
            "this network does not support variable image sizes (tracing raised "
            f"{type(error).__name__}); give a fixed size, as in --size={height}x{width}"
        ) from error
