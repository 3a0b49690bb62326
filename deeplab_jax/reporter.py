"""How long work reports its progress without knowing who receives it."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

Item = TypeVar("Item")


class Reporter:
    """Hears messages, warnings and progress; this base class keeps silent.

    Work takes a reporter from its caller and never prints itself. The commands hand in one that
    draws on the terminal, Python callers get `LoggingReporter` unless they pass another.
    """

    def message(self, text: str) -> None:
        """Hears a line worth reading."""

    def warning(self, text: str) -> None:
        """Hears of something that goes on but is probably not what was wanted."""

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterator[Item]:
        """Yields the items and hears of each; `total` is their number where it is known."""
        yield from items

    def training_step(self, step: int, num_steps: int, scalars: Mapping[str, float]) -> None:
        """Hears how training stands after `step` of `num_steps`.

        `scalars` holds `loss`, `learning_rate`, `images_per_second` and `seconds_left`.
        """


class LoggingReporter(Reporter):
    """Passes on to the logger `deeplab_jax`."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("deeplab_jax")

    def message(self, text: str) -> None:
        self._logger.info(text)

    def warning(self, text: str) -> None:
        self._logger.warning(text)

    def training_step(self, step: int, num_steps: int, scalars: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        self._logger.info("step %d of %d: %s", step, num_steps, shown)
