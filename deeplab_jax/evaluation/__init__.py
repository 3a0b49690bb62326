"""How good a model is on a split: quickly while training, and in full afterwards."""

from deeplab_jax.evaluation.evaluator import Evaluator
from deeplab_jax.evaluation.measurement import evaluate
from deeplab_jax.evaluation.report import table

__all__ = ["Evaluator", "evaluate", "table"]
