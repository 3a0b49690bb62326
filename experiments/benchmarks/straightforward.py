"""Baseline: straightforward Flax implementation, with the weights of the deeplab_jax network."""

import time

import jax
import numpy as np
import optax

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.networks import Contender, compiled_contender, planned_bytes
from deeplab_jax.models import DeepLab, create_model
from deeplab_jax.training.state import Variables
from experiments.benchmarks import straightforward_flax
from experiments.benchmarks.baselines import Match, Workload, relative_difference

NAME = "straightforward Flax"
NUM_CLASSES = 21
RATE, MOMENTUM = 0.01, 0.9


def forward(work: Workload) -> Match:
    """Returns the forward passes of deeplab_jax and of the straightforward implementation."""
    image = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)["image"]
    model, variables = _network(work.network, image)
    plain = straightforward_flax.make_network(work.network, NUM_CLASSES)
    mine = ours.forward(model, variables, image)
    theirs = compiled_contender(
        NAME, plain.apply, straightforward_flax.to_straightforward(variables), image
    )
    return Match(
        f"DeepLab {work.title('forward')}",
        mine,
        theirs,
        ours.forward_operations(model, image),
        relative_difference(mine.run(), theirs.run()),
    )


def training(work: Workload) -> Match:
    """Returns the training steps of deeplab_jax and of the straightforward implementation.

    Both networks are trained without dropout.
    """
    batch = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)
    model, variables = _network(work.network, batch["image"], dropout_rate=0.0)
    mine = ours.training_step(model, variables, batch, RATE)
    theirs = _step(work.network, variables, batch)
    return Match(
        f"DeepLab {work.title('training step')}",
        mine,
        theirs,
        3 * ours.forward_operations(model, batch["image"]),
        relative_difference(mine.run(), theirs.run()),
    )


def _network(network: str, image: np.ndarray, **options: float) -> tuple[DeepLab, Variables]:
    version, backbone = network.split("/")
    model = create_model(
        f"deeplab_{version}", backbone=backbone, num_classes=NUM_CLASSES, **options
    )
    return model, jax.jit(model.init)(jax.random.key(0), image)


def _step(network: str, variables: Variables, batch: dict[str, np.ndarray]) -> Contender:
    optimizer = optax.sgd(RATE, MOMENTUM)
    plain = straightforward_flax.make_network(network, NUM_CLASSES)
    variables = jax.tree.map(jax.numpy.array, straightforward_flax.to_straightforward(variables))
    state, batch = optimizer.init(variables["params"]), jax.device_put(batch)
    step = straightforward_flax.make_train_step(plain, optimizer)
    started = time.perf_counter()
    compiled = step.lower(variables, state, batch).compile()
    seconds = time.perf_counter() - started
    kept = [(variables, state)]

    def run() -> float:
        variables, state, loss = compiled(*kept[0], batch)
        kept[0] = variables, state
        return float(loss)

    return Contender(NAME, run, seconds, planned_bytes(compiled))
