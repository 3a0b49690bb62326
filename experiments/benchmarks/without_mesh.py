"""Baseline: the training step without a device mesh.

Comparing it with the training step on a mesh of one device shows the cost of the mesh.
"""

import jax

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import create_model
from deeplab_jax.parallel import make_mesh
from experiments.benchmarks.baselines import Match, Workload, relative_difference

NUM_CLASSES = 21


def forward(work: Workload) -> Match:
    """Raises an error, because forward passes do not use a mesh.

    Raises:
      DeepLabError: always.
    """
    raise DeepLabError(
        "the baseline without_mesh has only training steps, because forward passes use no mesh; "
        "give training instead of forward"
    )


def training(work: Workload) -> Match:
    """Returns training steps of DeepLab v3+ on a mesh of one device and without a mesh."""
    batch = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)
    model = create_model("deeplab_v3plus", backbone=work.network, num_classes=NUM_CLASSES)
    variables = jax.jit(model.init)(jax.random.key(0), batch["image"])
    mesh = make_mesh(jax.devices()[:1])
    mine = ours.training_step(model, variables, batch, mesh=mesh)
    theirs = ours.training_step(model, variables, batch)
    return Match(
        f"DeepLab v3+ {work.title('training step on a mesh')}",
        mine,
        theirs,
        3 * ours.forward_operations(model, batch["image"]),
        relative_difference(mine.run(), theirs.run()),
    )
