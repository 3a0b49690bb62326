"""Interface for reporting messages and progress."""

import logging
from collections.abc import Generator, Iterable, Mapping
from typing import TypeVar

Item = TypeVar("Item")


class Reporter:
    """Receives messages, warnings and progress events; this base class ignores them.

    The functions of this package print nothing. They report to the reporter that the caller passes:
    the commands pass one that writes to the terminal, and the default in Python is
    `LoggingReporter`.
    """

    def message(self, text: str) -> None:
        """Receives an informational message."""

    def warning(self, text: str) -> None:
        """Receives a warning. The work continues, but the result may not be the intended one."""

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Generator[Item, None, None]:
        """Yields the items and reports the progress.

        Args:
          items: items to iterate over.
          description: name of the task.
          total: number of items; None: unknown.
        """
        yield from items

    def training_step(self, step: int, num_steps: int, scalars: Mapping[str, float]) -> None:
        """Receives the metrics of training step `step` of `num_steps`.

        `scalars` contains the values that `Pace.summarize` in training/measurements.py returns,
        such as `loss`, `learning_rate`, `images_per_second` and `seconds_left`. It also contains
        FLOP/s utilization, goodput and peak memory if they are known.
        """


class LoggingReporter(Reporter):
    """Reporter that writes messages and training metrics to the logger `deeplab_jax`."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("deeplab_jax")

    def message(self, text: str) -> None:
        self._logger.info(text)

    def warning(self, text: str) -> None:
        self._logger.warning(text)

    def training_step(self, step: int, num_steps: int, scalars: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        self._logger.info("step %d of %d: %s", step, num_steps, shown)
