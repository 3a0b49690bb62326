"""Reporter that records messages."""

from collections.abc import Iterable, Iterator
from typing import Any

from deeplab_jax.reporter import Reporter


class RecordingReporter(Reporter):
    """Records messages and warnings in order, and (items done, total) of each finished track."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []
        self.tracks: list[tuple[int, int | None]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def track(
        self, items: Iterable[Any], description: str, total: int | None = None
    ) -> Iterator[Any]:
        done = 0
        for item in items:
            done += 1
            yield item
        self.tracks.append((done, total))
