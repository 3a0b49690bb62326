"""Forward passes and training steps of a network, compiled and ready to be timed."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from deeplab_jax import config as configs
from deeplab_jax.benchmark.machine import run_seconds
from deeplab_jax.labels import label_dtype, void_label
from deeplab_jax.models import DeepLab, create_model, list_models
from deeplab_jax.models.deeplab import fold
from deeplab_jax.models.summary import summarize
from deeplab_jax.parallel import place, put_batch, replicated
from deeplab_jax.training.loss import make_objective
from deeplab_jax.training.optimizers import make_optimizer, make_schedule
from deeplab_jax.training.state import TrainState, Variables, with_variables
from deeplab_jax.training.step import make_train_step

OURS = "deeplab_jax"


@dataclasses.dataclass(frozen=True)
class Contender:
    """An implementation to compare in a benchmark, compiled and ready to run.

    Attributes:
      name: name of the implementation.
      run: function that runs the implementation once, waits for the result and returns it.
      compile_seconds: compile time in seconds; None: nothing is compiled. With `torch.compile` it
        includes the first run.
      peak_bytes: peak memory of a run in bytes, parameters included; None: unknown.
    """

    name: str
    run: Callable[[], Any]
    compile_seconds: float | None = None
    peak_bytes: int | None = None

    def median_seconds(self, repetitions: int) -> float:
        """Returns the median wall time of a run in seconds, after one warm-up run."""
        return statistics.median(run_seconds(self.run, repetitions))


def compiled_contender(name: str, function: Callable[..., Any], *arguments: Any) -> Contender:
    """Compiles a function, and returns a `Contender` that calls it with the given arguments.

    The arguments are moved to the device first. The attribute `peak_bytes` is the compiler's
    estimate; see `planned_bytes`.
    """
    arguments = jax.device_put(arguments)
    compiled, seconds = _compile(jax.jit(function), *arguments)
    return Contender(
        name, lambda: jax.block_until_ready(compiled(*arguments)), seconds, planned_bytes(compiled)
    )


def _compile(function: Any, *arguments: Any) -> tuple[jax.stages.Compiled, float]:
    """Returns the compiled program of a jitted function, and the compile time in seconds."""
    started = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - started


def planned_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Returns the compiler's estimate of the memory of a program in bytes; None: unknown.

    The estimate includes arguments, results and temporary arrays.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def split_network(name: str) -> tuple[str, dict[str, str]]:
    """Splits the name ARCHITECTURE/BACKBONE into the architecture and keywords of `create_model`.

    The keywords contain the backbone; for ARCHITECTURE alone, they are empty. The names are not
    checked.
    """
    known = list_models()
    if name in known or "/" not in name:
        return name, {}
    # Names of architectures and of backbones may contain slashes, too.
    parts = name.split("/")
    splits = [("/".join(parts[:at]), "/".join(parts[at:])) for at in range(1, len(parts))]
    architecture, backbone = next((pair for pair in splits if pair[0] in known), splits[-1])
    return architecture, {"backbone": backbone}


def random_batch(batch_size: int, size: tuple[int, int], num_classes: int) -> dict[str, np.ndarray]:
    """Returns random uint8 `image` [N, H, W, 3] and `label` [N, H, W] with 10 % void pixels."""
    random = np.random.default_rng(0)
    label = random.integers(0, num_classes, (batch_size, *size), label_dtype(num_classes))
    label[random.random(label.shape) < 0.1] = void_label(num_classes)
    return {"image": random.integers(0, 256, (batch_size, *size, 3), np.uint8), "label": label}


def made_variables(model: DeepLab) -> Variables:
    """Returns random float32 variables of a network, for timing.

    `model.init` is not used, because compiling it takes long. Kernels are normally distributed with
    variance 1 / fan-in. Biases are 0, and all other variables are 1.
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 33, 33, 3), np.uint8))
    random = np.random.default_rng(0)

    def make(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key != "kernel":
            return np.full(leaf.shape, float(path[-1].key != "bias"), np.float32)
        values = random.standard_normal(leaf.shape, np.float32)
        return values * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)

    return jax.tree_util.tree_map_with_path(make, shapes)


def measure_network(
    name: str,
    size: tuple[int, int],
    batch_size: int,
    dtype: str,
    *,
    training: bool,
    repetitions: int,
) -> dict[str, Any]:
    """Times a network on random images, after one warm-up run.

    Args:
      name: ARCHITECTURE or ARCHITECTURE/BACKBONE.
      size: (height, width) of the images in pixels.
      batch_size: number of images per batch.
      dtype: data type of the computation.
      training: True: time training steps. False: time forward passes, with folded batch
        normalization.
      repetitions: number of timed runs; `seconds` is their median.

    Returns:
      A JSON-serializable dictionary:

      - `seconds`: median time of a run, which processes one batch.
      - `images_per_second`: throughput.
      - `operations_per_second`: number of floating-point operations per second; a training step
        counts as three forward passes.
      - `compile_seconds`: compile time.
      - `peak_bytes`: compiler's estimate of the memory, see `planned_bytes`.

    Raises:
      DeepLabError: there is no such network.
    """
    architecture, keywords = split_network(name)
    model = create_model(architecture, dtype=dtype, **keywords)
    batch = random_batch(batch_size, size, model.architecture.num_classes)
    variables, passes = made_variables(model), 3 if training else 1
    program = (
        training_step(model, variables, batch)
        if training
        else forward(model, variables, batch["image"], folded=True)
    )
    median = program.median_seconds(repetitions)
    return {
        "seconds": median,
        "images_per_second": batch_size / median,
        "operations_per_second": passes * forward_operations(model, batch["image"]) / median,
        "compile_seconds": program.compile_seconds,
        "peak_bytes": program.peak_bytes,
    }


def forward_operations(model: DeepLab, image: np.ndarray) -> float:
    """Returns the number of floating-point operations of a forward pass, 2 per multiply-add."""
    return 2.0 * summarize(model, image.shape[1:3]).macs * len(image)


def forward(
    model: DeepLab, variables: Variables, image: np.ndarray, folded: bool = False
) -> Contender:
    """Returns a `Contender` that runs a compiled forward pass.

    The forward pass computes logits at image resolution from uint8 images.

    Args:
      model: network to run.
      variables: variables of the network.
      image: uint8 images [N, H, W, C].
      folded: whether to fold batch normalizations into the preceding convolutions.
    """
    if folded:
        model, variables = fold(model, variables)
    return compiled_contender(
        OURS, lambda variables, image: model.apply(variables, image), variables, image
    )


def training_step(
    model: DeepLab,
    variables: Variables,
    batch: dict[str, np.ndarray],
    rate: float = 0.01,
    *,
    mesh: Mesh | None = None,
) -> Contender:
    """Returns a `Contender` that runs a compiled training step of SGD with momentum.

    All runs use the same batch. Each run continues from the parameters and the optimizer state of
    the previous run, and returns the loss before the parameters are updated.

    Args:
      model: network to train.
      variables: initial variables.
      batch: dictionary with the images, uint8 [N, H, W, C], under the key `image`, and the labels,
        [N, H, W], under the key `label`.
      rate: constant learning rate.
      mesh: devices over which the batch is sharded (default: one device).
    """
    step, optimizer = make_step(model, rate, mesh)
    state = with_variables(jax.tree.map(jax.numpy.array, variables), optimizer, False)
    if mesh is None:
        return _repeated(step, state, jax.device_put(batch))
    return _repeated(step, place(state, replicated(mesh)), put_batch(batch, mesh))


def make_step(
    model: DeepLab, rate: float, mesh: Mesh | None = None
) -> tuple[Callable[..., Any], optax.GradientTransformation]:
    """Returns a jitted training step and the optimizer that it uses.

    The step maps (state, batch) to (new state, metrics). The learning rate is constant, and there
    is no weight decay.
    """
    config = configs.default()
    config.schedule.name, config.schedule.base_learning_rate = "constant", rate
    config.optimizer.weight_decay = 0.0
    learning_rate = make_schedule(config.schedule, 1)
    optimizer = make_optimizer(config.optimizer, learning_rate)
    objective = make_objective(config.loss, model.architecture)
    return make_train_step(model, optimizer, learning_rate, objective, mesh, seed=0), optimizer


def _repeated(step: Callable[..., Any], state: TrainState, batch: dict[str, Any]) -> Contender:
    compiled, seconds = _compile(step, state, batch)
    kept = [state]

    def run() -> float:
        kept[0], metrics = compiled(kept[0], batch)
        return float(metrics["loss"])

    return Contender(OURS, run, seconds, planned_bytes(compiled))
