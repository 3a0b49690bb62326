"""How fast a run goes, and what its last steps were like."""

import time
from collections.abc import Mapping

import jax


class Pace:
    """Averages the metrics of steps and measures their rate; time spent elsewhere is left out."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.start()

    def start(self) -> None:
        """Begins a measurement; to be called when the next step is about to run."""
        self._losses: list[jax.Array] = []
        self._started = time.perf_counter()
        self._paused = 0.0

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        """Counts a step."""
        self._losses.append(metrics["loss"])

    def pause(self, seconds: float) -> None:
        """Takes time out of the measurement, such as that of an evaluation."""
        self._paused += seconds

    def summarize(self, metrics: Mapping[str, jax.Array], steps_left: int) -> dict[str, float]:
        """Returns the scalars since the last summary; waits for the last step to be done.

        Returns:
          `loss` (their mean), `learning_rate` and `gradient_norm` of the last step,
          `images_per_second` and `seconds_left`.
        """
        loss = sum(float(loss) for loss in self._losses) / len(self._losses)
        elapsed = time.perf_counter() - self._started - self._paused
        seconds_per_step = elapsed / len(self._losses)
        self.start()
        return {
            "loss": loss,
            "learning_rate": float(metrics["learning_rate"]),
            "gradient_norm": float(metrics["gradient_norm"]),
            "images_per_second": self._batch_size / seconds_per_step,
            "seconds_left": seconds_per_step * steps_left,
        }
