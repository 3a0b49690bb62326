"""Resumable downloads, verified by checksum."""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import math
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter

MEBIBYTE = 2**20
READ_BYTES = 2**16
# HTTP statuses of temporary failures.
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
NETWORK_ERRORS = urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException
# The size of the whole file is `*` if the server does not know it.
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def verify(path: Path, checksums: Sequence[str]) -> None:
    """Checks that the checksum of a file is one of the published checksums.

    Args:
      path: path of the file.
      checksums: published checksums as `ALGORITHM:DIGITS`. ALGORITHM is a name in hashlib. DIGITS
        are all hexadecimal digits of the checksum, or only the first ones. If no checksums are
        given, every file is accepted.

    Raises:
      DeepLabError: no checksum matches. The message contains the actual and published checksums.
    """
    with path.open("rb") as file:
        verify_content(file, checksums, path.name)


def verify_content(
    file: io.BufferedReader | io.BytesIO, checksums: Sequence[str], name: str = "it"
) -> None:
    """Checks that the checksum of an open file is one of the published checksums.

    Args:
      file: open file.
      checksums: published checksums as `ALGORITHM:DIGITS`. ALGORITHM is a name in hashlib. DIGITS
        are all hexadecimal digits of the checksum, or only the first ones. If no checksums are
        given, every file is accepted.
      name: name of the file for the error message.

    Raises:
      DeepLabError: no checksum matches. The message contains the actual and published checksums.
    """
    published = [checksum.split(":") for checksum in checksums]
    found = {}
    for algorithm in dict(published):
        file.seek(0)
        found[algorithm] = hashlib.file_digest(file, algorithm).hexdigest()
    if published and not any(
        found[algorithm].startswith(digits) for algorithm, digits in published
    ):
        ours = ", ".join(f"{algorithm}:{digits}" for algorithm, digits in found.items())
        raise DeepLabError(
            f"{name} is not the published file: its checksum is {ours}, expected "
            f"{' or '.join(checksums)}"
        )


@dataclasses.dataclass(frozen=True)
class Patience:
    """Limits of a download: time, speed, attempts and size.

    Attributes:
      timeout: maximum time to connect and to wait for data, in seconds.
      slowest: minimum bytes per second, averaged over `timeout` seconds.
      attempts: maximum number of attempts to connect or to resume.
      pause: seconds before the second attempt; doubled for each further attempt.
      max_bytes: maximum size of the file.
    """

    timeout: float = 30.0
    slowest: float = 1024.0
    attempts: int = 5
    pause: float = 1.0
    max_bytes: int = 4 * 2**30


def download(
    url: str,
    target: Path,
    checksums: Sequence[str],
    reporter: Reporter,
    patience: Patience | None = None,
) -> Path:
    """Downloads and verifies a file; retries after network errors.

    An interrupted download is kept in `TARGET.part`. The next call resumes it if the file on the
    server has not changed.

    Args:
      url: http or https address.
      target: path of the file; must not exist.
      checksums: published checksums as `ALGORITHM:DIGITS`, see `verify`.
      reporter: receives progress events, in MiB, and messages about interruptions.
      patience: limits of the download.

    Returns:
      `target`.

    Raises:
      DeepLabError: the file cannot be downloaded or written, is too large, or is not the published
        one. In the first case, the message contains the path where the user can put the file by
        hand. In the last two cases, the downloaded file is removed.
    """
    fetching = _Download(url, target, reporter, patience or Patience())
    fetching.run()
    try:
        verify(fetching.part, checksums)
    except DeepLabError as error:
        fetching.remove()
        raise DeepLabError(f"{url}: {error}; the downloaded file was removed") from error
    os.replace(fetching.part, target)
    fetching.remove()
    return target


def by_hand(url: str, target: Path, reason: object) -> DeepLabError:
    """Returns the error for a file that cannot be downloaded, with advice for offline use.

    Args:
      url: address of the file.
      target: path where the user can put the file.
      reason: reason why the download failed.
    """
    return DeepLabError(
        f"cannot download {url} ({reason}); without a network, put this file at {target}"
    )


class _Download:
    """Download in progress.

    It is stored in two files: the part of the content that was received, and a JSON file with the
    URL, the size and the version (ETag or date) of the file on the server.
    """

    def __init__(self, url: str, target: Path, reporter: Reporter, patience: Patience) -> None:
        self.url, self.target, self.reporter, self.patience = url, target, reporter, patience
        self.part = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def run(self) -> None:
        """Downloads the file to `TARGET.part`; retries after network errors."""
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return self._fetch()
            except NETWORK_ERRORS as error:
                reason = getattr(error, "reason", None) or error
                if not _may_pass(error) or attempt == self.patience.attempts:
                    raise by_hand(self.url, self.target, reason) from error
                pause = self.patience.pause * 2 ** (attempt - 1)
                self.reporter.message(f"{self.target.name}: {reason}; retrying in {pause:.0f} s")
                time.sleep(pause)
            except OSError as error:
                raise DeepLabError(
                    f"{self.part} cannot be written ({error.strerror or error}); free some space "
                    "or change the permissions, or set DEEPLAB_CACHE to another directory"
                ) from error

    def remove(self) -> None:
        """Removes the partial file and the JSON file about it."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _fetch(self) -> None:
        """Downloads the rest of the file, or the whole file if nothing can be resumed."""
        start, note = self._resumable()
        size = note.get("size")
        if start and start == size:
            return
        headers = {"User-Agent": "deeplab_jax", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": note["validator"]}
        request = urllib.request.Request(self.url, headers=headers)
        try:
            with _network_errors():
                response = urllib.request.urlopen(request, timeout=self.patience.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if error.headers.get("Content-Range") == f"bytes */{start}":
                    return
                raise self._stale() from error
            raise
        with response:
            if response.headers.get_content_type() == "text/html":
                reason = "the server sent a web page, perhaps of a proxy or a login"
                raise by_hand(self.url, self.target, reason)
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                self._begin(response)
                start = 0
            elif not _continues(response, start, size):
                raise self._stale()
            self._write(response, start)

    def _resumable(self) -> tuple[int, dict[str, Any]]:
        """Returns the size of the partial file and the content of the JSON file about it.

        Returns (0, {}) if there is no download to resume.
        """
        try:
            note = json.loads(self.note.read_text())
            if note["url"] == self.url and note["validator"]:
                return self.part.stat().st_size, note
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, {}

    def _begin(self, response: http.client.HTTPResponse) -> None:
        # A weak ETag does not identify a version of the file.
        tag = response.headers.get("ETag")
        strong = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.write_bytes(b"")
        note = {"url": self.url, "validator": strong, "size": _length(response)}
        self.note.write_text(json.dumps(note))

    def _stale(self) -> ConnectionError:
        """Removes the partial file, and returns the error for a file that changed on the server.

        The next attempt then downloads the whole file.
        """
        self.remove()
        return ConnectionError("the file on the server has changed")

    def _write(self, response: http.client.HTTPResponse, start: int) -> None:
        missing = _length(response)
        self._check_size(start + (missing or 0))
        with self.part.open("ab") as file:
            steps = None if missing is None else math.ceil(missing / MEBIBYTE)
            title = f"downloading {self.target.name}, MiB"
            for _ in self.reporter.track(self._arriving(response, file), title, steps):
                self._check_size(file.tell())
            arrived = file.tell() - start
        if missing is not None and arrived < missing:
            raise ConnectionError(f"the connection ended after {arrived:,} of {missing:,} bytes")

    def _check_size(self, size: int) -> None:
        if size > self.patience.max_bytes:
            self.remove()
            raise DeepLabError(
                f"{self.target.name} has {size:,} bytes or more; the maximum is "
                f"{self.patience.max_bytes:,}"
            )

    def _arriving(self, response: http.client.HTTPResponse, file: BinaryIO) -> Iterator[None]:
        """Writes the received data to `file`; yields None for each mebibyte, to report progress."""
        written, recent, since = 0, 0, time.monotonic()
        while data := _received(response):
            file.write(data)
            recent += len(data)
            if (written + len(data)) // MEBIBYTE > written // MEBIBYTE:
                yield
            written += len(data)
            elapsed = time.monotonic() - since
            if elapsed > self.patience.timeout:
                if recent < self.patience.slowest * elapsed:
                    raise TimeoutError(f"only {recent} bytes received in {elapsed:.0f} s")
                recent, since = 0, time.monotonic()
        if written % MEBIBYTE:
            yield


def _may_pass(error: Exception) -> bool:
    """Returns whether another attempt at the download may succeed after this error."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in PASSING_STATUSES
    return not isinstance(getattr(error, "reason", None), socket.gaierror)


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Converts errors of the network that are none of NETWORK_ERRORS to `ConnectionError`.

    Examples are `ssl.SSLError` and "no route to host", which is a plain `OSError`.
    """
    try:
        yield
    except NETWORK_ERRORS:
        raise
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _received(response: http.client.HTTPResponse) -> bytes:
    with _network_errors():
        return response.read1(READ_BYTES)


def _continues(response: http.client.HTTPResponse, start: int, size: int | None) -> bool:
    """Returns whether a partial response contains the rest of the file.

    Args:
      response: response with the status 206.
      start: number of bytes that were received before.
      size: size of the file according to the first response, or None if it did not state the size.
    """
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    sizes = ("*", str(size))
    return found is not None and int(found[1]) == start and (size is None or found[2] in sizes)


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None
