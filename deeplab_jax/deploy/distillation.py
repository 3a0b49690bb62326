"""Training a network on what a larger one says of every pixel (arXiv 1503.02531)."""

import dataclasses
from typing import Any

import jax

from deeplab_jax import losses
from deeplab_jax.errors import DeepLabError
from deeplab_jax.model_store import SEGMENTATION, StoredModel
from deeplab_jax.models import DeepLab
from deeplab_jax.training.objective import Objective, Outputs
from deeplab_jax.training.run import Run

# Endpoint that holds the teacher's logits.
TEACHER = "teacher"


def distilled(run: Run, teacher: StoredModel, weight: float, temperature: float) -> Run:
    """Returns the run with a teacher's loss on top of its own.

    The teacher sees the same crops, with its moving averages and without dropout.

    Args:
      run: of the student.
      teacher: a model of the same classes.
      weight: of the teacher's loss; the run's own keep theirs.
      temperature: see `distillation_loss`.

    Raises:
      DeepLabError: a number is illegal, or the teacher is none for this student.
    """
    if weight <= 0 or temperature <= 0:
        raise DeepLabError(f"weight {weight:g} and temperature {temperature:g} must be above 0")
    if teacher.description.task != SEGMENTATION:
        raise DeepLabError("a teacher must tell the class of every pixel, not of images")
    theirs, ours = teacher.description.class_names, run.description.class_names
    if theirs != ours:
        raise DeepLabError(
            f"the teacher's {len(theirs)} classes are not the {len(ours)} of {run.train.name}: "
            f"{', '.join(theirs[:3])}, … and {', '.join(ours[:3])}, …"
        )
    return dataclasses.replace(
        run,
        model=_taught_network(run.model, teacher),
        objective=_with_teacher(run.objective, weight, temperature),
    )


def _taught_network(student: DeepLab, teacher: StoredModel) -> DeepLab:
    """Returns the student as a network whose endpoints in training hold the teacher's logits."""
    variables = jax.device_put(teacher.variables)

    class TaughtDeepLab(DeepLab):
        def apply(self, own: Any, image: jax.Array, *, train: bool = False, **keywords: Any) -> Any:
            results = super().apply(own, image, train=train, **keywords)
            if not train:
                return results
            (logits, maps), changed = results
            seen = teacher.model.apply(variables, image, train=False)
            return (logits, maps | {TEACHER: jax.lax.stop_gradient(seen)}), changed

    return TaughtDeepLab(student.architecture)


def _with_teacher(objective: Objective, weight: float, temperature: float) -> Objective:
    def both(
        outputs: Outputs, label: jax.Array, batch_label: jax.Array, step: jax.Array
    ) -> jax.Array:
        logits, maps = outputs
        known = losses.valid_pixels(batch_label, logits.shape[-1])
        taught = losses.distillation_loss(logits, maps[TEACHER], label, known, temperature)
        return objective(outputs, label, batch_label, step) + weight * taught

    return both
