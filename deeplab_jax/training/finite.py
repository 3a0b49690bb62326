"""Stops a run whose numbers have left the finite."""

import collections
import math
from collections.abc import Mapping

import jax

from deeplab_jax.errors import DeepLabError

# Steps that the check stays behind, so that it never waits for the devices.
LAG = 2


class FiniteCheck:
    """Looks at the metrics of each step a little later than they are made."""

    def __init__(self) -> None:
        self._waiting: collections.deque = collections.deque()

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes a step's metrics and looks at those of `LAG` steps before.

        Raises:
          DeepLabError: loss or gradient was not finite.
        """
        self._waiting.append((step, metrics))
        if len(self._waiting) > LAG:
            self._look()

    def finish(self) -> None:
        """Looks at all that is waiting; to be called before a state is saved.

        Raises:
          DeepLabError: as `add`.
        """
        while self._waiting:
            self._look()

    def _look(self) -> None:
        step, metrics = self._waiting.popleft()
        for name in ("loss", "gradient_norm"):
            value = float(metrics[name])
            if not math.isfinite(value):
                raise DeepLabError(
                    f"{name} became {value} at step {step}; nothing after the last checkpoint is "
                    "kept; a lower schedule.base_learning_rate or more schedule.warmup_steps "
                    "usually helps"
                )
