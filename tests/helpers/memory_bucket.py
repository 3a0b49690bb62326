"""Bucket s3://bucket in memory, of whose files the listing states MD5 as a service does."""

import base64
import hashlib
from typing import ClassVar

import fsspec
import pytest


class MemoryBucket(fsspec.get_filesystem_class("memory")):
    """File system in memory.

    Attributes:
      copied: names of the files that were copied from it.
    """

    protocol = "s3"
    copied: ClassVar[list[str]] = []

    def find(self, path, detail=False, **keywords):
        """Lists files, with `md5Hash` as in Google Cloud Storage."""
        found = super().find(path, detail=True, **keywords)
        for name, facts in found.items():
            if facts["type"] == "file":
                digest = hashlib.md5(self.cat_file(name)).digest()
                facts["md5Hash"] = base64.b64encode(digest).decode()
        return found if detail else list(found)

    def glob(self, path, **keywords):
        """Lists matching paths, without the protocol as other file systems do."""
        return [name.removeprefix("s3://") for name in super().glob(path, **keywords)]

    def get_file(self, source, target, **keywords):
        """Copies a file to this machine."""
        self.copied.append(source.rpartition("/")[2])
        super().get_file(source, target, **keywords)


def use_memory_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empties the bucket and makes it the file system of s3://."""
    # By default etils takes TensorFlow's file systems where TensorFlow happens to be installed.
    monkeypatch.setattr("etils.epath.gpath._is_tf_installed", lambda: False)
    # etils keeps the file system of a protocol, so all tests must use the same class.
    fsspec.register_implementation("s3", MemoryBucket, clobber=True)
    # All file systems in memory share their content.
    MemoryBucket.store.clear()
    MemoryBucket.pseudo_dirs[:] = [""]
    MemoryBucket.copied.clear()
