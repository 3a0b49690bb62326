"""`train` with an auxiliary head, DeepLab v2's loss and a warm-up."""

import numpy as np
import pytest

from deeplab_jax.checkpointing import read_variables
from deeplab_jax.training.writers import read_rows

# A minute: the step of two scales and two heads is compiled.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(commands, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("auxiliary") / "run"
    commands.run(
        *commands.train_words(
            workdir,
            "model.aux_head=True",
            "model.multi_scale=(1.0, 0.5)",
            "loss.upsample_logits=False",
            "loss.supervise_all_scales=True",
            "optimizer.name=sgd",
            # Without decay, only a gradient changes a parameter.
            "optimizer.weight_decay=0.0",
            "training.num_steps=3",
            "checkpoint.every_steps=1",
            "schedule.base_learning_rate=0.01",
            "schedule.name=constant",
            "schedule.warmup_steps=4",
        )
    )
    return workdir


def test_the_auxiliary_head_is_trained(workdir):
    early, late = (read_variables(workdir, step, False)["params"]["auxiliary"] for step in "23")
    for layer, name in (("conv", "kernel"), ("classifier", "kernel"), ("classifier", "bias")):
        before, after = (np.asarray(tree[layer][name]) for tree in (early, late))
        assert not np.array_equal(before, after), (layer, name)


def test_the_rate_rises_linearly_from_a_fraction_of_the_base(workdir):
    rates = [row["learning_rate"] for row in read_rows(workdir) if "learning_rate" in row]
    assert rates == pytest.approx([0.01 / 4, 0.02 / 4, 0.03 / 4])
