"""Downloads from a server that behaves well or badly."""

import errno
import hashlib
import http.client
import multiprocessing
import os
import time

import numpy as np
import pytest
from file_server import Behaviour, serving
from reporters import RecordingReporter

from deeplab_jax.errors import DeepLabError
from deeplab_jax.pretrained.download import Patience, download, verify
from deeplab_jax.reporter import Reporter

CONTENT = np.random.default_rng(0).bytes(3_000_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
QUICK = Patience(timeout=0.5, attempts=3, pause=0.01)


@pytest.fixture
def server():
    """The behaviour of a running server, with its URL of a file."""
    behaviour = Behaviour(CONTENT)
    with serving(behaviour) as url:
        behaviour.url = f"{url}/files/weights.bin"
        yield behaviour


@pytest.fixture
def get(server, tmp_path):
    """Downloads the file; returns where it is."""

    def get(checksum=CHECKSUM, patience=QUICK, listener=None):
        target = tmp_path / "cache" / "weights.bin"
        return download(server.url, target, [checksum], listener or RecordingReporter(), patience)

    return get


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_file_arrives_with_progress_and_nothing_beside_it(get, tmp_path):
    listener = RecordingReporter()
    assert get(listener=listener).read_bytes() == CONTENT
    assert files_below(tmp_path) == {"cache/weights.bin"}
    assert listener.tracks == [(3, 3)]
    assert listener.messages == []


def test_an_interrupted_download_resumes(get, server):
    server.cut_after = [1_000_000, 500_000]
    listener = RecordingReporter()
    assert get(listener=listener).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-", "bytes=1500000-"]
    assert "the connection ended after 1,000,000 of 3,000,000 bytes" in listener.messages[0]


# Bytes before the content in a response of one chunk: its length in hexadecimal, and a line break.
CHUNK_HEAD = len(b"2dc6c0\r\n")


def test_a_download_of_unknown_length_resumes(get, server):
    server.chunked, server.cut_after = True, [CHUNK_HEAD + 1_000_000]
    listener = RecordingReporter()
    assert get(listener=listener).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-"]
    assert len(listener.messages) == 1


def test_a_download_of_unknown_length_that_ends_before_its_last_line_is_complete(get, server):
    server.chunked, server.cut_after = True, [CHUNK_HEAD + len(CONTENT)]
    assert get().read_bytes() == CONTENT
    assert server.requests == [None, "bytes=3000000-"]


def test_a_network_error_of_the_operating_system_is_passing(get, server, monkeypatch):
    errors = [OSError(errno.EHOSTUNREACH, "No route to host")]
    read = http.client.HTTPResponse.read1

    def read_or_fail(response, size=-1):
        if errors:
            raise errors.pop()
        return read(response, size)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", read_or_fail)
    listener = RecordingReporter()
    assert get(listener=listener).read_bytes() == CONTENT
    assert "No route to host; retrying" in listener.messages[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="requires /dev/full")
def test_a_full_disk_is_reported_with_the_path_and_the_remedy(get, server, tmp_path):
    part = tmp_path / "cache" / "weights.bin.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(DeepLabError, match=r"No space left on device.*DEEPLAB_CACHE") as caught:
        get()
    assert str(part) in str(caught.value)
    assert len(server.requests) == 1


def test_a_partial_download_is_continued_by_the_next_call(get, server, tmp_path):
    server.cut_after = [1_000_000] * 3
    server.content = CONTENT
    with pytest.raises(DeepLabError, match="the connection ended"):
        get(patience=Patience(timeout=0.5, attempts=1))
    assert files_below(tmp_path) == {"cache/weights.bin.part", "cache/weights.bin.part.json"}
    server.cut_after = []
    assert get().read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000000-"]


@pytest.mark.parametrize("change", ["no ranges", "no tag", "another file", "shorter file"])
def test_a_download_that_cannot_resume_restarts(get, server, change):
    server.cut_after = [1_000_000]
    server.ranges = change != "no ranges"
    server.tag = change != "no tag"
    with pytest.raises(DeepLabError):
        get(patience=Patience(timeout=0.5, attempts=1))
    if "file" in change:
        server.content = {"another": CONTENT[::-1], "shorter": CONTENT[:5]}[change.split()[0]]
    digest = hashlib.sha256(server.content).hexdigest()
    assert get(checksum=f"sha256:{digest}").read_bytes() == server.content


def test_a_complete_partial_file_is_only_verified(get, server, tmp_path):
    server.cut_after = [1_000_000]
    with pytest.raises(DeepLabError):
        get(patience=Patience(timeout=0.5, attempts=1))
    (tmp_path / "cache" / "weights.bin.part").write_bytes(CONTENT)
    assert get().read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("left", [b"", b"x" * 4_000_000])
@pytest.mark.parametrize("note", ["", "[]", '{"url": 1}', "\x00", "true"])
def test_a_damaged_resume_record_does_not_stop_the_download(get, tmp_path, left, note):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "weights.bin.part").write_bytes(left)
    (folder / "weights.bin.part.json").write_text(note)
    assert get().read_bytes() == CONTENT


def test_a_part_longer_than_the_file_starts_again(get, server, tmp_path):
    server.cut_after = [1_000_000]
    with pytest.raises(DeepLabError):
        get(patience=Patience(timeout=0.5, attempts=1))
    (tmp_path / "cache" / "weights.bin.part").write_bytes(CONTENT * 2)
    assert get().read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_the_cache_as_it_was(get, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "other").write_bytes(b"mine")
    with pytest.raises(DeepLabError) as caught:
        get(checksum="sha256:" + "0" * 64)
    assert CHECKSUM in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert files_below(tmp_path) == {"cache/other"}


def test_a_stall_ends_in_time_and_keeps_what_came(get, server, tmp_path):
    server.stall_after = 100_000
    started = time.monotonic()
    with pytest.raises(DeepLabError, match=r"put this file at .*weights\.bin"):
        get()
    assert time.monotonic() - started < 6
    assert (tmp_path / "cache" / "weights.bin.part").stat().st_size >= 100_000


def test_a_trickle_counts_as_a_stall(get, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(DeepLabError, match="bytes received in"):
        get(patience=Patience(timeout=5, slowest=10_000_000, attempts=1))


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 3)])
def test_a_refusal_says_what_to_do_and_leaves_nothing(get, server, tmp_path, status, requests):
    server.status = status
    with pytest.raises(DeepLabError) as caught:
        get()
    assert server.url in str(caught.value)
    assert f"put this file at {tmp_path / 'cache' / 'weights.bin'}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == requests
    assert files_below(tmp_path) == set()


def test_a_web_page_is_not_the_file(get, server, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(DeepLabError, match=r"the server sent a web page.*put this file at"):
        get()
    assert len(server.requests) == 1
    assert files_below(tmp_path) == set()


def test_a_server_that_recovers(get, server):
    server.statuses = [503, 500]
    assert get().read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://name.invalid/x"])
def test_without_network_the_error_names_the_place(tmp_path, url):
    with pytest.raises(DeepLabError, match="put this file at"):
        download(url, tmp_path / "x", [], RecordingReporter(), QUICK)
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("declared", [None, 10**15])
def test_a_file_that_is_too_large_is_refused(get, server, tmp_path, declared):
    server.declared = declared
    with pytest.raises(DeepLabError, match="the maximum is 2,000,000"):
        get(patience=Patience(timeout=0.5, attempts=1, max_bytes=2_000_000))
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    "checksums",
    [[], [CHECKSUM], [CHECKSUM[:15]], ["sha256:00", CHECKSUM], ["sha384:" + "{sha384}"]],
)
def test_checksums_that_fit(tmp_path, checksums):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    sha384 = hashlib.sha384(CONTENT).hexdigest()
    verify(path, [checksum.format(sha384=sha384) for checksum in checksums])


def _download_and_tell(url, folder, results):
    from deeplab_jax.pretrained.location import locked

    target = folder / "weights.bin"
    with locked(target, Reporter()):
        fetched = not target.exists()
        if fetched:
            download(url, target, [CHECKSUM], Reporter(), QUICK)
    results.put(fetched)


def test_two_processes_download_once(server, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (server.url, tmp_path, results)
    processes = [context.Process(target=_download_and_tell, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=120) for _ in processes) == [False, True]
    for process in processes:
        process.join(60)
    assert len(server.requests) == 1
    assert (tmp_path / "weights.bin").read_bytes() == CONTENT
