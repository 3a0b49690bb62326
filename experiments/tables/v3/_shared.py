"""Shared parts of the tables of DeepLab v3."""

from experiments.strategies import AT_8, FLIP, MULTI_SCALE
from experiments.table import Changes

NO_POOLING = {"model.image_pooling": "none"}


def multi_grid(*rates: int) -> Changes:
    """Returns the config change that sets the multi-grid of block4."""
    return {"model.multi_grid": rates}


def blocks(last: int) -> Changes:
    """Returns the config change that sets the last block of a cascade."""
    return {"model.cascade_blocks": last}


# Inference strategies of tables 4 and 6. Each adds one step to the previous strategy.
STEPS = (
    ("output stride 16", {}),
    ("output stride 8", AT_8),
    ("output stride 8, scales", AT_8 | MULTI_SCALE),
    ("output stride 8, scales, flip", AT_8 | MULTI_SCALE | FLIP),
)
