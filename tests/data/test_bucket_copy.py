"""Prepared datasets in a bucket, here one in memory, are copied once and verified."""

import threading
import time

import pytest
from memory_bucket import MemoryBucket, use_memory_bucket
from reporters import RecordingReporter

from deeplab_jax.data import bucket_copy, prepared_directory
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import as_path

FILES = {
    "dataset_info.json": b"{}",
    "shapes-train.array_record-00000-of-00001": bytes(range(200)),
    "shapes-val.array_record-00000-of-00001": bytes(range(100)),
}


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
    use_memory_bucket(monkeypatch)
    for name, content in FILES.items():
        path = as_path("s3://bucket/data/shapes/1.0.0") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return "s3://bucket/data"


def test_a_dataset_is_copied_once(bucket, tmp_path):
    reporter = RecordingReporter()
    target = prepared_directory("shapes", bucket, reporter)
    assert target == tmp_path / "cache/datasets/s3/bucket/data/shapes/1.0.0"
    assert {name: (target / name).read_bytes() for name in FILES} == FILES
    assert prepared_directory("shapes", bucket, reporter) == target
    assert sorted(MemoryBucket.copied) == sorted(FILES)
    assert reporter.messages == [f"copying {bucket}/shapes/1.0.0 (0 MB) to {target}"]


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (NotImplementedError("no flock"), "does not support locks; set DEEPLAB_CACHE"),
        (OSError(37, "No locks available"), r"cannot be written \(No locks available\)"),
    ],
)
def test_a_file_system_without_locks_is_reported(bucket, monkeypatch, error, complaint):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    with pytest.raises(DeepLabError, match=complaint):
        prepared_directory("shapes", bucket)


@pytest.mark.parametrize("side", ["bucket", "copy", "interrupted"])
def test_what_has_changed_is_copied_again(bucket, side):
    target = prepared_directory("shapes", bucket)
    name = "shapes-train.array_record-00000-of-00001"
    expected = FILES[name]
    if side == "bucket":
        # Another content of the same size.
        expected = bytes(200)
        (as_path(bucket) / "shapes/1.0.0" / name).write_bytes(expected)
    elif side == "copy":
        (target / name).write_bytes(b"short")
    else:
        (target / ".copied.json").unlink()
    assert prepared_directory("shapes", bucket) == target
    assert (target / name).read_bytes() == expected
    assert len(MemoryBucket.copied) == 2 * len(FILES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"short", "the copy has 5 bytes instead of 200"),
        (bytes(200), "the copy has a wrong checksum"),
    ],
)
def test_a_damaged_copy_is_not_kept(bucket, monkeypatch, tmp_path, content, complaint):
    def damaged(self, source, target, **keywords):
        with open(target, "wb") as file:
            file.write(content if "train" in source else self.cat_file(source))

    monkeypatch.setattr(MemoryBucket, "get_file", damaged)
    with pytest.raises(DeepLabError, match=complaint):
        prepared_directory("shapes", bucket)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [
        tmp_path / "cache/datasets/s3/bucket/data/shapes/.1.0.0.lock"
    ]


@pytest.mark.parametrize("key", ["ETag", "crc32c"])
def test_a_tag_shows_changes_of_files_without_an_md5(bucket, monkeypatch, key):
    """With the encryption SSE-KMS of S3, ETags look like an MD5, but are none.

    Composite objects of Google Cloud Storage have a CRC-32C, but no MD5.
    """
    tags = {}

    def find(self, path, detail=False, **keywords):
        found = super(MemoryBucket, self).find(path, detail=True, **keywords)
        for name, facts in found.items():
            facts[key] = tags.get(name.rpartition("/")[2], '"0123456789abcdef0123456789abcdef"')
        return found

    monkeypatch.setattr(MemoryBucket, "find", find)
    prepared_directory("shapes", bucket)
    prepared_directory("shapes", bucket)
    assert sorted(MemoryBucket.copied) == sorted(FILES)
    tags["shapes-val.array_record-00000-of-00001"] = '"fedcba9876543210fedcba9876543210"'
    prepared_directory("shapes", bucket)
    assert len(MemoryBucket.copied) == 2 * len(FILES)


def test_empty_objects_that_represent_folders_are_not_copied(bucket, monkeypatch):
    """The program gcsfuse, which mounts buckets, writes such objects."""
    find = MemoryBucket.find

    def with_folders(self, path, detail=False, **keywords):
        found = find(self, path, detail=True, **keywords)
        folders = {f"{path}/": 0, f"{path}/notes/": 0}
        return found | {name: {"type": "file", "size": size} for name, size in folders.items()}

    monkeypatch.setattr(MemoryBucket, "find", with_folders)
    target = prepared_directory("shapes", bucket)
    assert {path.name for path in target.iterdir()} == {*FILES, ".copied.json"}


def test_two_at_once_copy_once(bucket, monkeypatch):
    copy = bucket_copy._copy_file

    def slow(*arguments):
        time.sleep(0.05)
        copy(*arguments)

    monkeypatch.setattr(bucket_copy, "_copy_file", slow)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(prepared_directory("shapes", bucket)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(MemoryBucket.copied) == len(FILES)


def test_a_dataset_that_does_not_exist_lists_those_that_do(bucket):
    with pytest.raises(DeepLabError, match=r"no dataset 'voc' .*prepared there: shapes"):
        prepared_directory("voc", bucket)


def test_a_full_disk_is_refused_before_copying(bucket, monkeypatch):
    usage = bucket_copy.shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(bucket_copy.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DeepLabError, match="DEEPLAB_CACHE to a directory on a larger disk"):
        prepared_directory("shapes", bucket)
    assert MemoryBucket.copied == []
