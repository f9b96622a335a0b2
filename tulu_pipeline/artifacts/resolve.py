"""Sources to descriptors, at plan time: local files are hashed, moving ones looked up in the lock.

`sources.lock` remembers, by address, the sha256 of what was trusted on its first download and of what a moving
source was last resolved to. It belongs in version control.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import LocalFile, Source, TrackedFile
from tulu_pipeline.errors import BadInput


class SourcesLock:
    """The file `sources.lock`: address to sha256. Readers see it whole; writers take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, str] | None = None

    def get(self, address: str) -> str | None:
        """The remembered sha256.

        Raises:
            BadInput: the file is broken.
        """
        if self._read is None:
            self._read = self._load()
        return self._read.get(address)

    def set(self, address: str, sha256: str) -> None:
        """Remember a hash; other entries stay."""
        with self._exclusive():
            entries = self._load() | {address: sha256}
            temporary = self.path.with_name(f".tmp-{uuid.uuid4().hex}")
            temporary.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
            temporary.replace(self.path)
            self._read = entries

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _load(self) -> dict[str, str]:
        try:
            entries = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as error:
            raise BadInput(
                f"broken JSON: {error.msg}",
                f"{self.path}:{error.lineno}",
                "restore it from version control, or remove it",
            ) from error
        return dict(entries)


class Resolver:
    """Descriptors of sources for one plan.

    Args:
        lock: the hashes trusted so far.
        memory: file that remembers the hash of a local file by inode, modification time and size; None for none.
    """

    def __init__(self, lock: SourcesLock, memory: Path | None = None) -> None:
        self.lock = lock
        self._memory_path = memory
        self._memory: dict[str, str] = {}
        self._memory_changed = False
        if memory is not None and memory.exists():
            try:
                self._memory = json.loads(memory.read_text())
            except json.JSONDecodeError:
                self._memory = {}  # a cache: hashing again is all that is lost

    def descriptor(self, source: Source) -> dict[str, Any] | None:
        """What of `source` enters a key; None for a moving source that was never resolved.

        Raises:
            BadInput: a local file that is not there and that nothing makes.
        """
        if isinstance(source, LocalFile):
            return {"sha256": self._local_hash(source)}
        if isinstance(source, TrackedFile):
            sha256 = self.lock.get(source.address())
            return None if sha256 is None else {"sha256": sha256}
        return source.descriptor()

    def remember(self) -> None:
        """Keep the hashes of local files for the next plan."""
        if self._memory_path is not None and self._memory_changed:
            self._memory_path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._memory_path.with_name(f".tmp-{uuid.uuid4().hex}")
            temporary.write_text(json.dumps(self._memory))
            temporary.replace(self._memory_path)

    def _local_hash(self, source: LocalFile) -> str:
        path = Path(source.path)
        if not path.exists() and source.maker:
            make_local(source)
        try:
            status = path.stat()
        except OSError as error:
            raise BadInput(f"local source `{path}` is not there", str(path.absolute()), "put the file there") from error
        if path.is_dir():
            raise BadInput(f"local source `{path}` is a folder", str(path.absolute()), "name its files one by one")
        fact = f"{path.absolute()}:{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"
        if fact not in self._memory:
            with open(path, "rb") as file:
                self._memory[fact] = hashlib.file_digest(file, "sha256").hexdigest()
            self._memory_changed = True
        return self._memory[fact]


def make_local(source: LocalFile) -> None:
    """Write a missing local file with its maker, `module:function`, called with the file's folder.

    A maker writes whatever is missing and touches nothing that is there.
    """
    module, _, function = source.maker.partition(":")
    getattr(importlib.import_module(module), function)(Path(source.path))
