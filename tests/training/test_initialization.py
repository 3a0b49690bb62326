import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from stand_ins import write_workdir

from deeplab_jax import ops
from deeplab_jax.errors import DeepLabError
from deeplab_jax.model_store import read_description, read_variables
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.initialization import initialize_from


class Listener(Reporter):
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("runs") / "three", ["sky", "tree", "road"])


def fresh_variables(workdir, **changes):
    """Returns variables of the workdir's model with other keywords, each array filled with 7."""
    description = read_description(workdir)
    description.overrides.update(changes)
    model = description.create_model()
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), jnp.uint8)
    with ops.portable():
        shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), shapes)


def starting_from(workdir, **changes):
    listener = Listener()
    variables = initialize_from(fresh_variables(workdir, **changes), str(workdir), listener)
    return traverse_util.flatten_dict(variables, sep="/"), listener.messages


def test_the_same_network_takes_everything(workdir):
    found, messages = starting_from(workdir)
    expected = traverse_util.flatten_dict(read_variables(workdir), sep="/")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path], expected[path]) for path in expected)
    assert messages == []


def test_another_number_of_classes_starts_with_a_fresh_classifier(workdir):
    found, messages = starting_from(workdir, num_classes=5)
    expected = traverse_util.flatten_dict(read_variables(workdir), sep="/")
    afresh = {path for path in found if np.all(found[path] == 7)}
    assert afresh == {"params/classifier/kernel", "params/classifier/bias"}
    assert all(np.array_equal(found[path], expected[path]) for path in expected.keys() - afresh)
    (bias,) = (message for message in messages if "bias" in message)
    assert bias == f"params/classifier/bias starts afresh: [3] in {workdir}, [5] here"


@pytest.mark.parametrize(
    "changes", [{"aspp_channels": 8}, {"head": "aspp"}, {"depth_multiplier": 0.25}]
)
def test_another_network_is_refused(workdir, changes):
    message = re.escape(f"training.init_from={workdir} holds another network")
    with pytest.raises(DeepLabError, match=message):
        starting_from(workdir, **changes)


def test_a_place_without_a_model_is_refused(tmp_path, workdir):
    with pytest.raises(DeepLabError, match="no checkpoint"):
        initialize_from(fresh_variables(workdir), str(tmp_path), Reporter())
