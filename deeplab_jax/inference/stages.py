"""Stages of a stream of images: items made ahead of, or used behind, the main thread."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")

# How often a stage that waits looks whether it should end, in seconds.
LOOK_INTERVAL = 0.1


class Ahead(Generic[Item]):
    """Makes items before they are asked for; to be used as a context and iterated over once."""

    def __init__(self, items: Iterator[Item], waiting: int, *, newest: bool = False) -> None:
        """Starts at once.

        Args:
          items: made in a thread of their own.
          waiting: items that may wait.
          newest: an item drops those that still wait before it.
        """
        self._items, self._newest = items, newest
        # Each entry is (item, error); the last is (None, None).
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(waiting)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yields the items; raises what their making raised."""
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _make(self) -> None:
        error = None
        try:
            for item in self._items:
                if self._newest:
                    with contextlib.suppress(queue.Empty):
                        while True:
                            self._queue.get_nowait()
                if not self._put((item, None)):
                    return
        except BaseException as raised:
            error = raised
        self._put((None, error))

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> bool:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=LOOK_INTERVAL)
                return True
        return False


class Behind(Generic[Item]):
    """Calls a function for one item after the other; a context that ends when all are done."""

    def __init__(self, function: Callable[[Item], None], waiting: int) -> None:
        """Starts at once.

        Args:
          function: is called in a thread of its own.
          waiting: items that may wait; `put` blocks beyond.
        """
        self._function = function
        self._queue: queue.Queue[Item | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hands an item over; raises what an earlier one raised."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:
                    self._error = error
