"""Errors of a bucket that cannot be reached."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class HttpError(Exception):
    """Error that is no OSError, such as `gcsfs.retry.HttpError`."""


# gcsfs raises a ValueError for some responses.
ERRORS = [HttpError("503"), ValueError("Bad Request"), OSError("no route to host")]


@contextlib.contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, method: str, error: Exception
) -> Iterator[Callable[[], int]]:
    """Lets a method of paths raise an error for files of one name, while the `with` block runs.

    Yields:
      Function that returns the number of failed calls.
    """
    original, calls = getattr(pathlib.Path, method), []

    def call(path: pathlib.Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            calls.append(path)
            raise error
        return original(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, method, call)
        yield lambda: len(calls)
