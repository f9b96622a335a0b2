"""Sources to descriptors, at plan time: local files are hashed, moving ones looked up in the lock.

`sources.lock` remembers, by address, the sha256 of what was trusted on its first download and of what a moving
source was last resolved to. It belongs in version control.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tulu_pipeline.artifacts.source import LocalFile, Source, TrackedFile
from tulu_pipeline.errors import BadInput

_SETTLED_SECONDS = 2.0  # the coarsest clock of a usual file system


class SourcesLock:
    """The file `sources.lock`: address to sha256. Readers see it whole; writers take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, str] | None = None

    def get(self, address: str) -> str | None:
        """The remembered sha256, as it was when this was first asked for anything.

        Raises:
            BadInput: the file is broken.
        """
        if self._read is None:
            self._read = self._load()
        return self._read.get(address)

    def addresses(self) -> list[str]:
        """Every remembered address, as `get` sees them."""
        if self._read is None:
            self._read = self._load()
        return list(self._read)

    def set(self, address: str, sha256: str) -> None:
        """Remember a hash; other entries stay.

        Raises:
            BadInput: the file is broken; it is left as it is.
        """
        self._change(address, sha256, replace=True)

    def trust(self, address: str, sha256: str) -> str:
        """Remember a hash unless another was there before; returns the one that counts."""
        return self._change(address, sha256, replace=False)

    def _change(self, address: str, sha256: str, *, replace: bool) -> str:
        with self._exclusive():
            entries = self._load()
            if replace or address not in entries:
                entries[address] = sha256
                write_whole(self.path, json.dumps(entries, indent=1, sort_keys=True) + "\n")
            self._read = entries
            return entries[address]

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
        fix = "restore it from version control, or remove it"
        try:
            entries = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            line = getattr(error, "lineno", 1)
            raise BadInput(f"broken JSON: {error}", f"{self.path}:{line}", fix) from error
        if not isinstance(entries, dict) or not all(isinstance(sha256, str) for sha256 in entries.values()):
            raise BadInput("not an object of addresses and hashes", str(self.path), fix)
        return entries


class Resolver:
    """Descriptors of sources for one plan, which sees one state of each.

    Args:
        lock: the hashes trusted so far.
        memory: file that remembers the hash of a local file while nothing about the file changes; None for none.
    """

    def __init__(self, lock: SourcesLock, memory: Path | None = None) -> None:
        self.lock = lock
        self._known: dict[Source, dict[str, Any] | None] = {}
        self._memory_path = memory
        self._memory: dict[str, dict[str, Any]] = {}
        self._memory_changed = False
        if memory is not None:
            with contextlib.suppress(OSError, ValueError):  # a cache: hashing again is all that is lost
                entries = json.loads(memory.read_text())
                self._memory = entries if isinstance(entries, dict) else {}

    def descriptor(self, source: Source) -> dict[str, Any] | None:
        """What of `source` enters a key; None for a moving source that was never resolved.

        Raises:
            BadInput: a local file that is not there and that nothing makes.
        """
        if source not in self._known:
            self._known[source] = self._describe(source)
        return self._known[source]

    def remember(self) -> None:
        """Keep the hashes of local files for the next plan."""
        if self._memory_path is not None and self._memory_changed:
            with contextlib.suppress(OSError):
                self._memory_path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._memory_path, json.dumps(self._memory, indent=1) + "\n")

    def _describe(self, source: Source) -> dict[str, Any] | None:
        if isinstance(source, LocalFile):
            return {"sha256": self._local_hash(source)}
        if isinstance(source, TrackedFile):
            sha256 = self.lock.get(source.address())
            return None if sha256 is None else {"sha256": sha256}
        return source.descriptor()

    def _local_hash(self, source: LocalFile) -> str:
        path = Path(source.path)
        if not path.exists() and source.maker:
            make_local(source)
        where = str(path.absolute())
        try:
            with open(path, "rb") as file:
                facts = _facts(file)
                known = self._memory.get(where)
                if isinstance(known, dict) and known.items() >= facts.items():
                    return str(known["sha256"])
                now_ns = time.time_ns()
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except IsADirectoryError as error:
            raise BadInput(f"local source `{path}` is a folder", where, "name its files one by one") from error
        except FileNotFoundError as error:
            raise BadInput(f"local source `{path}` is not there", where, "put the file there") from error
        except OSError as error:
            raise BadInput(f"local source `{path}` cannot be read: {error.strerror}", where, "mend that") from error
        # A file written this very moment may be written again without its times showing it.
        if now_ns - max(facts["modified_ns"], facts["changed_ns"]) > _SETTLED_SECONDS * 1e9:
            self._memory[where] = {**facts, "sha256": sha256}
            self._memory_changed = True
        return sha256


def write_whole(path: Path, text: str) -> None:
    """Create or replace a file in one step."""
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with open(temporary, "x") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _facts(file: BinaryIO) -> dict[str, int]:
    """What changes whenever the bytes of a file may have changed."""
    status = os.fstat(file.fileno())
    return {
        "inode": status.st_ino,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
        "bytes": status.st_size,
    }


def make_local(source: LocalFile) -> None:
    """Write a missing local file with its maker, `module:function`, called with the file's folder.

    A maker writes whatever is missing and touches nothing that is there.
    """
    module, _, function = source.maker.partition(":")
    getattr(importlib.import_module(module), function)(Path(source.path))
