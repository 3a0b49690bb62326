"""Downloads that go on where they stopped, verified by checksum."""

import dataclasses
import hashlib
import http.client
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
from typing import BinaryIO

from deeplab_jax.errors import DeepLabError
from deeplab_jax.reporter import Reporter


def verify(path: Path, checksums: Sequence[str]) -> None:
    """Checks that a file is the published one.

    Args:
      path: of the file.
      checksums: `ALGORITHM:DIGITS` with an algorithm of hashlib, whole or the first digits; one of
        them must fit. Without any, every file will do.

    Raises:
      DeepLabError: none fits; says the file's and the published ones.
    """
    found = {algorithm: _digest(path, algorithm) for algorithm in map(_algorithm, checksums)}
    if checksums and not any(
        found[_algorithm(checksum)].startswith(_digits(checksum)) for checksum in checksums
    ):
        ours = ", ".join(f"{algorithm}:{digits}" for algorithm, digits in found.items())
        raise DeepLabError(
            f"{path.name} is not the published file: its checksum is {ours}, "
            f"published is {' or '.join(checksums)}"
        )


def _algorithm(checksum: str) -> str:
    return checksum.partition(":")[0]


def _digits(checksum: str) -> str:
    return checksum.partition(":")[2]


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


MEBIBYTE = 2**20
READ_BYTES = 2**16
# Statuses of a server that may answer otherwise in a moment.
PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
NETWORK_ERRORS = (
    urllib.error.URLError,
    ConnectionError,
    TimeoutError,
    http.client.HTTPException,
)
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclasses.dataclass(frozen=True)
class Patience:
    """When a download is given up.

    Attributes:
      timeout: seconds to connect, and without data.
      slowest: bytes a second, over `timeout` seconds, that still count as progress.
      attempts: to connect, or to go on after the connection broke.
      pause: seconds before the second attempt; doubles with each.
      max_bytes: larger files are refused.
    """

    timeout: float = 30.0
    slowest: float = 1024.0
    attempts: int = 5
    pause: float = 1.0
    max_bytes: int = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class _Part:
    """A file that is not whole yet, and what the server said of the whole."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def resumable(self, url: str) -> tuple[int, dict]:
        """Returns how many bytes are there, and the note on them; 0 where they are no use."""
        try:
            note = json.loads(self.note.read_text())
            if note["url"] == url and note["validator"]:
                return self.path.stat().st_size, note
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, {}

    def begin(self, url: str, response: http.client.HTTPResponse) -> None:
        """Notes what the following bytes are part of."""
        note = {"url": url, "validator": _validator(response), "size": _length(response)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self.note.write_text(json.dumps(note))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(
    url: str,
    target: Path,
    checksums: Sequence[str],
    reporter: Reporter,
    patience: Patience | None = None,
) -> Path:
    """Downloads a file unless the connection fails for good.

    What has arrived is kept in `TARGET.part`, and the next call goes on from there if the server
    still has the same file.

    Args:
      url: http or https.
      target: path of the file, which is not there.
      checksums: see `verify`.
      reporter: hears of progress, in MiB, and of interruptions.
      patience: when it is given up.

    Returns:
      `target`.

    Raises:
      DeepLabError: there is no such file or no network (names where to put the file by hand), or
        the file is not the published one (and is removed).
    """
    patience = patience or Patience()
    part = _Part(target.with_name(f"{target.name}.part"))
    _fetch_patiently(url, part, target, reporter, patience)
    try:
        verify(part.path, checksums)
    except DeepLabError as error:
        part.remove()
        raise DeepLabError(f"{url}: {error}; what was downloaded is removed") from error
    os.replace(part.path, target)
    part.remove()
    return target


def by_hand(url: str, target: Path, reason: object) -> DeepLabError:
    """Returns the error of a file that cannot be fetched, with what to do instead."""
    return DeepLabError(
        f"cannot download {url} ({reason}); without network, put that file at {target}"
    )


def _fetch_patiently(
    url: str, part: _Part, target: Path, reporter: Reporter, patience: Patience
) -> None:
    for attempt in range(1, patience.attempts + 1):
        try:
            return _fetch(url, part, reporter, patience)
        except NETWORK_ERRORS as error:
            reason = getattr(error, "reason", None) or error
            if not _may_pass(error) or attempt == patience.attempts:
                raise by_hand(url, target, reason) from error
            pause = patience.pause * 2 ** (attempt - 1)
            reporter.message(f"{target.name}: {reason}; trying again in {pause:.0f} s")
            time.sleep(pause)


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may help: not where the server says no, nor without a server."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in PASSING_STATUSES
    return not isinstance(getattr(error, "reason", None), socket.gaierror)


def _fetch(url: str, part: _Part, reporter: Reporter, patience: Patience) -> None:
    """Fetches what is missing of a file, or all of it."""
    there, note = part.resumable(url)
    if there and there == note["size"]:
        return
    headers = {"User-Agent": "deeplab_jax", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": note["validator"]}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _stale(part) from error
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            part.begin(url, response)
            there = 0
        elif not _follows(response, there, note):
            raise _stale(part)
        _write(response, part, there, reporter, patience)


def _follows(response: http.client.HTTPResponse, there: int, note: dict) -> bool:
    """Whether what comes is the rest of the file whose beginning is there."""
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return found is not None and (int(found[1]), int(found[2])) == (there, note["size"])


def _stale(part: _Part) -> ConnectionError:
    """Removes what is there, so that the next attempt asks for the whole file."""
    part.remove()
    return ConnectionError("the file is another by now")


def _write(
    response: http.client.HTTPResponse,
    part: _Part,
    there: int,
    reporter: Reporter,
    patience: Patience,
) -> None:
    missing = _length(response)
    steps = None if missing is None else math.ceil(missing / MEBIBYTE)
    _check_size(there + (missing or 0), part, patience)
    with part.path.open("ab") as file:
        arriving = _arriving(response, file, patience)
        for _ in reporter.track(arriving, f"downloading {part.path.stem}, MiB", steps):
            _check_size(file.tell(), part, patience)
        arrived = file.tell() - there
    if missing is not None and arrived < missing:
        raise ConnectionError(f"the connection ended after {arrived:,} of {missing:,} bytes")


def _check_size(size: int, part: _Part, patience: Patience) -> None:
    if size > patience.max_bytes:
        part.remove()
        raise DeepLabError(
            f"{part.path.stem} is {size:,} bytes or more; at most {patience.max_bytes:,} are legal"
        )


def _arriving(
    response: http.client.HTTPResponse, file: BinaryIO, patience: Patience
) -> Iterator[None]:
    """Writes what arrives; yields once a mebibyte, and at the end."""
    written, recent, since = 0, 0, time.monotonic()
    while data := response.read1(READ_BYTES):
        file.write(data)
        recent += len(data)
        if (written + len(data)) // MEBIBYTE > written // MEBIBYTE:
            yield
        written += len(data)
        elapsed = time.monotonic() - since
        if elapsed > patience.timeout:
            if recent < patience.slowest * elapsed:
                raise TimeoutError(f"only {recent} bytes came in {elapsed:.0f} s")
            recent, since = 0, time.monotonic()
    if written % MEBIBYTE:
        yield


def _validator(response: http.client.HTTPResponse) -> str | None:
    """Returns the tag that identifies this version of a file; weak tags do not."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None
