"""Evaluates models on a dataset split, during and after training."""

from deeplab_jax.evaluation.comparison import (
    compare_strategies,
    comparison_table,
    papers_steps,
    strategy_steps,
)
from deeplab_jax.evaluation.crf_search import CRFGrid, crf_search_table, search_crf
from deeplab_jax.evaluation.evaluate import Evaluator, evaluate
from deeplab_jax.evaluation.report import settings_lines, table
from deeplab_jax.evaluation.temperature import TemperatureFit, fit_temperature

__all__ = [
    "CRFGrid",
    "Evaluator",
    "TemperatureFit",
    "compare_strategies",
    "comparison_table",
    "crf_search_table",
    "evaluate",
    "fit_temperature",
    "papers_steps",
    "search_crf",
    "settings_lines",
    "strategy_steps",
    "table",
]
