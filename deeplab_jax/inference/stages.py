"""Pipeline stages in threads: producing items ahead of, or consuming them behind, the caller."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")

# Interval in seconds at which a waiting stage checks whether it should end.
LOOK_INTERVAL = 0.1


class Ahead(Generic[Item]):
    """Produces items in a thread before they are requested; a context, iterated over once."""

    def __init__(self, items: Iterator[Item], waiting: int, *, newest: bool = False) -> None:
        """Starts the thread.

        Args:
          items: iterator that the thread consumes.
          waiting: maximum number of items that wait.
          newest: whether a new item discards those that still wait.
        """
        self._items, self._newest = items, newest
        # Each entry is (item, error); the last is (None, None).
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(waiting)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._make, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yields the items; reraises the error of the iterator."""
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
    """Calls a function for each item in a thread; the context ends when all are done."""

    def __init__(self, function: Callable[[Item], None], waiting: int) -> None:
        """Starts the thread.

        Args:
          function: function that the thread calls.
          waiting: maximum number of items that wait; `put` blocks beyond it.
        """
        self._function = function
        self._queue: queue.Queue[Item | None] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queues an item; reraises the error of an earlier one."""
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
