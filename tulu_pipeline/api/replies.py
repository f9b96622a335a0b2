"""Replies that were paid for, kept for ever: one log beside the store, whatever experiment asked.

An append-only file of JSON lines, each written under a lock of the file and synced before it counts. What a kill left
unfinished at its end is cut off by the next writer; readers take whole lines only. Processes that want the same reply
at the same time agree by locking a byte of a second file, so that one asks and the others wait.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tulu_pipeline.api.requests import ApiRequest, Reply
from tulu_pipeline.artifacts.json_lines import from_line, to_line
from tulu_pipeline.artifacts.storage import telling
from tulu_pipeline.errors import BadInput, StoreError

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_PREFIX = b'{"request_sha256":"'
_DIGEST = slice(len(_PREFIX), len(_PREFIX) + 64)
_CHUNK = 1 << 20
HELD = frozenset({errno.EACCES, errno.EAGAIN})  # what POSIX has a lock say that another process holds
_CLAIM_BITS = 60  # of the digest: the place of a claim's byte


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    request_sha256: str  # first: it is found without parsing the line
    schema_version: int
    request: ApiRequest
    reply: Reply


class ReplyLog:
    """The log in a folder, for the threads of this process and beside those of others.

    One object per process and folder: the system gives the claims of a process up when it closes their file.
    """

    def __init__(self, folder: Path) -> None:
        with telling(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / "replies.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._claims = (folder / "claims").open("a+b")
        self.path = folder / "replies.jsonl"
        self._lock = threading.Lock()
        self._found: dict[str, int] = {}  # digest to the offset of its line
        self._read_to = 0

    def close(self) -> None:
        """Let go of the files."""
        os.close(self._file)
        self._claims.close()

    def find(self, digest: str) -> Reply | None:
        """The reply to the request of this digest, whoever recorded it; None where there is none."""
        with self._lock:
            self._read_on()
            offset = self._found.get(digest)
            return None if offset is None else self._line(offset).reply

    def add(self, request: ApiRequest, reply: Reply) -> None:
        """Record a reply; when this returns it survives whatever happens.

        Raises:
            StoreError: it cannot be written.
        """
        line = to_line(
            _Line(request_sha256=reply.request_sha256, schema_version=_SCHEMA_VERSION, request=request, reply=reply)
        )
        with self._lock, telling(self.path), _locked(self._file):
            end = self._cut_torn_line()
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, end)
                raise

    @contextlib.contextmanager
    def claimed(self, digest: str) -> Iterator[bool]:
        """Whether this process may ask for a reply now; False where another one is asking.

        Threads of this process agree among themselves.

        Raises:
            StoreError: the file system takes no locks.
        """
        place = int(digest, 16) >> (256 - _CLAIM_BITS)
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno not in HELD:
                what = f"no lock can be had: {error.strerror or error}"
                fix = "use a store on a file system with locks (NFS: with lockd; Lustre: mounted with `flock`)"
                raise StoreError(what, self._claims.name, f"{fix}: `--store PATH`") from error
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, place)

    def __len__(self) -> int:
        with self._lock:
            self._read_on()
            return len(self._found)

    def _read_on(self) -> None:
        """Take in what was written since; the caller holds the lock."""
        size = os.fstat(self._file).st_size
        if size < self._read_to:  # someone cut the file: what is known of it may be wrong
            self._found, self._read_to = {}, 0
        rest = b""
        while self._read_to + len(rest) < size:
            chunk = os.pread(self._file, _CHUNK, self._read_to + len(rest))
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
                self._read_to += len(line) + 1
            if not chunk:
                return

    def _take(self, line: bytes) -> None:
        if line.startswith(_PREFIX):
            self._found.setdefault(line[_DIGEST].decode(errors="replace"), self._read_to)
        else:
            log.warning("%s holds a line at byte %d that is none of its own", self.path, self._read_to)

    def _line(self, offset: int) -> _Line:
        line = b""
        while b"\n" not in line and (chunk := os.pread(self._file, _CHUNK, offset + len(line))):
            line += chunk
        return from_line(line.partition(b"\n")[0], _Line, f"{self.path}, byte {offset}")

    def _cut_torn_line(self) -> int:
        """The end of the last whole line; what a kill left behind it goes. The caller holds both locks."""
        self._read_on()
        size = os.fstat(self._file).st_size
        if size > self._read_to:
            log.warning("%s ended in a torn line of %d bytes; it is cut off", self.path, size - self._read_to)
            os.ftruncate(self._file, self._read_to)
        return self._read_to


_logs: dict[Path, ReplyLog] = {}
_logs_lock = threading.Lock()


def reply_log(folder: Path) -> ReplyLog:
    """This process's log of a folder."""
    with _logs_lock:
        found = _logs.get(folder.absolute())
        if found is None:
            found = _logs[folder.absolute()] = ReplyLog(folder.absolute())
        return found


def read_replies(path: Path) -> Iterator[tuple[ApiRequest, Reply]]:
    """What a log holds, in its order, up to a torn line; lines of nobody are left out."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            with contextlib.suppress(BadInput):
                found = from_line(line, _Line, f"{path}:{number}")
                yield found.request, found.reply


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
