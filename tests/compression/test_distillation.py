"""Distillation: the loss by hand, and what a taught network gives and learns."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CLASSES, describe, images, stored

from deeplab_jax.compression.fine_tuning import digest, distilled
from deeplab_jax.errors import DeepLabError
from deeplab_jax.losses import distillation_loss
from deeplab_jax.training.loss import Outputs

STUDENT = np.log(np.array([[[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]], np.float32))
TEACHER = np.log(np.array([[[[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]]]], np.float32))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        # 0.25·ln ½ + 0.5·ln 2, and 0.4·ln 2 + 0.6·ln ¾.
        ([0, 0], (0.173287 + 0.104650) / 2),
        ([1, 255], 0.173287),
        ([255, 2], 0.104650),
        ([255, 255], 0.0),
    ],
)
def test_divergence_by_hand(label, expected):
    found = distillation_loss(STUDENT, TEACHER, np.array([[label]], np.uint8))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_temperature_softens_both_and_is_squared():
    label = np.zeros((1, 1, 2), np.uint8)
    softened = distillation_loss(STUDENT / 3, TEACHER / 3, label)
    found = distillation_loss(STUDENT, TEACHER, label, temperature=3.0)
    assert float(found) == pytest.approx(9 * float(softened), rel=1e-5)


def test_bfloat16_is_computed_in_float32():
    label = np.zeros((1, 1, 2), np.uint8)
    student, teacher = (jnp.asarray(10 * logits, jnp.bfloat16) for logits in (STUDENT, TEACHER))
    found = distillation_loss(student, teacher, label, temperature=3.0)
    exact = (logits.astype(jnp.float32) for logits in (student, teacher))
    expected = distillation_loss(*exact, label, temperature=3.0)
    assert found.dtype == jnp.float32
    assert float(found) == float(expected)


def test_gradient_is_the_difference_of_probabilities():
    label = np.array([[[0, 255]]], np.uint8)
    slopes = jax.grad(distillation_loss, argnums=(0, 1))(
        jnp.asarray(STUDENT), jnp.asarray(TEACHER), label, temperature=2.0
    )
    student, teacher = (jax.nn.softmax(logits / 2, axis=-1) for logits in (STUDENT, TEACHER))
    expected = 2 * np.asarray(student - teacher) * np.array([1, 0])[:, None]
    np.testing.assert_allclose(slopes[0], expected, atol=1e-6)
    np.testing.assert_array_equal(slopes[1], np.zeros_like(TEACHER))


def test_zero_teacher_probability_gives_a_finite_loss():
    teacher = TEACHER.copy()
    teacher[..., 0] = -np.inf
    label = np.zeros((1, 1, 2), np.uint8)
    value, slope = jax.value_and_grad(distillation_loss)(jnp.asarray(STUDENT), teacher, label)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_other_shapes_are_refused():
    with pytest.raises(DeepLabError, match="must have the same shape"):
        distillation_loss(STUDENT, TEACHER[..., :2], np.zeros((1, 1, 2), np.uint8))


@dataclasses.dataclass(frozen=True)
class FewParts:
    """Of a run, what distillation changes."""

    model: object
    objective: object
    description: object
    train: object = None
    adjustments: dict = dataclasses.field(default_factory=dict)


def few_parts():
    student = stored("mobilenet_v2")

    def objective(outputs, label, batch_label, step):
        return jnp.float32(5)

    dataset = SimpleNamespace(name="shapes")
    return FewParts(student.model, objective, student.description, dataset)


def test_the_teachers_loss_comes_on_top():
    run = distilled(few_parts(), stored("resnet"), weight=0.5, temperature=2.0)
    outputs = Outputs(jnp.asarray(STUDENT), {"teacher": jnp.asarray(TEACHER)})
    label = np.zeros((1, 1, 2), np.uint8)
    expected = 5 + 0.5 * distillation_loss(STUDENT, TEACHER, label, temperature=2.0)
    assert float(run.objective(outputs, label, label, 0)) == pytest.approx(float(expected))


def test_a_digest_identifies_network_and_variables():
    model = stored("resnet")
    changed = jax.tree.map(np.copy, model.variables)
    changed["params"]["classifier"]["bias"][0] += 1e-6
    assert digest(model) == digest(dataclasses.replace(model, variables=model.variables))
    assert digest(model) != digest(dataclasses.replace(model, variables=changed))
    assert digest(model) != digest(model.changed(model.variables, {"output_stride": 16}))


def test_evaluation_applies_the_student_alone():
    student, teacher = stored("mobilenet_v2"), stored("resnet")
    network = distilled(few_parts(), teacher, weight=1.0, temperature=1.0).model

    def forward(variables, batch):
        return network.apply(variables, batch, method="class_map_and_logits")

    class_map, logits = jax.eval_shape(forward, student.variables, images(2))
    assert class_map.shape == logits.shape[:3]


@pytest.mark.slow
def test_the_teacher_sees_the_crops_as_in_inference():
    student, teacher = stored("mobilenet_v2"), stored("resnet")
    network = distilled(few_parts(), teacher, weight=1.0, temperature=1.0).model
    batch = images(2)

    @jax.jit
    def step(variables):
        return network.apply(
            variables,
            batch,
            train=True,
            endpoints=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )

    (_, maps), changed = step(student.variables)
    expected = jax.jit(teacher.model.apply)(teacher.variables, batch)
    np.testing.assert_allclose(maps["teacher"], expected, rtol=1e-3, atol=1e-3)
    # The student alone is what training carries on.
    assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(
        student.variables["batch_stats"]
    )


def test_a_teacher_of_other_classes_is_refused():
    other = dataclasses.replace(describe("resnet"), class_names=(*CLASSES[:2], "bus"))
    teacher = dataclasses.replace(stored("resnet"), description=other)
    difference = "class 2 is 'bus' instead of '" + CLASSES[2]
    with pytest.raises(DeepLabError, match=f"{difference}'; give a teacher with the classes"):
        distilled(few_parts(), teacher, 1.0, 1.0)
    with pytest.raises(DeepLabError, match="above 0"):
        distilled(few_parts(), stored("resnet"), 1.0, 0.0)


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        ({"in_channels": 4}, "4 bands of uint8"),
        ({"image_dtype": "uint16"}, "3 bands of uint16"),
    ],
)
def test_a_teacher_of_other_bands_is_refused(bands, shown):
    run = dataclasses.replace(few_parts(), description=describe("mobilenet_v2", **bands))
    message = rf"takes three bands of uint8 \(RGB\), but .* shapes have {shown}; give a teacher"
    with pytest.raises(DeepLabError, match=message):
        distilled(run, stored("resnet"), 1.0, 1.0)
