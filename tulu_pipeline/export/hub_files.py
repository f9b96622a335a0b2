"""Files on their way to a hub: read once, told how far they are, known by their hashes."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tulu_pipeline.artifacts.manifest import FileEntry
from tulu_pipeline.artifacts.stage import ReportProgress

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


class Meter:
    """Adds up how far the files are that are sent side by side."""

    def __init__(self, name: str, sizes: Mapping[str, int], paths: Collection[str], progress: ReportProgress) -> None:
        self._name, self._progress = name, progress
        self._total = sum(sizes[path] for path in paths)
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()

    def at(self, path: str, done_bytes: int) -> None:
        """`path` is read up to there; a file that is sent anew goes back."""
        with self._lock:
            self._done[path] = done_bytes
            self._progress(self._name, sum(self._done.values()), self._total, "bytes", "uploading")

    def finish(self) -> None:
        """All of it is there."""
        self._progress(self._name, self._total, self._total, "bytes")


class Reader(io.BufferedReader):
    """A file that tells how far it was read."""

    def __init__(self, file: Path, path: str, meter: Meter) -> None:
        super().__init__(io.FileIO(file))
        self.file = file
        self._path, self._meter = path, meter

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._meter.at(self._path, self.tell())
        return data


def from_disk(entry: FileEntry, reader: Reader) -> CommitOperationAdd:
    """An addition with the hash that is known already, so that gigabytes are not hashed once more."""
    from huggingface_hub import CommitOperationAdd

    addition = CommitOperationAdd(path_in_repo=entry.path, path_or_fileobj=reader.file)
    addition.upload_info.sha256 = bytes.fromhex(entry.sha256)
    # Given an open file, huggingface_hub sends it by Git LFS, whatever else is installed.
    addition.path_or_fileobj = reader
    return addition


def from_memory(path: str, data: bytes) -> CommitOperationAdd:
    """An addition of a small file."""
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)


def git_sha1(data: bytes) -> str:
    """The name that Git gives a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
