"""Values kept one by one as they come, so that a kill loses at most those under way.

Such a file is append-only: one JSON line per value, never rewritten. What a kill left unfinished at its end is cut off
when the file is opened again; everything before stays byte for byte.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from tulu_pipeline.artifacts.json_lines import from_line, to_line
from tulu_pipeline.errors import BadInput

T = TypeVar("T")
_SYNC_SECONDS = 0.5


class AppendFile(Generic[T]):
    """Appends values; a context manager. One writer at a time (the artifact's lease sees to it)."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        keep = sum(len(line) for line, _ in _whole_lines(path, kind))
        self._file = path.open("ab")
        self._file.truncate(keep)
        self._synced = time.monotonic()

    def add(self, value: T) -> None:
        """Append one. It survives a kill of this process at once, a power cut within half a second."""
        self._file.write(to_line(value))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        """Sync and close."""
        self._sync()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def read_appended(path: Path, kind: type[T]) -> Iterator[T]:
    """The whole values of a file, up to the first line that a kill left broken; none where there is no file."""
    for _, value in _whole_lines(path, kind):
        yield value


def _whole_lines(path: Path, kind: type[T]) -> Iterator[tuple[bytes, T]]:
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                value = from_line(line, kind, f"{path}:{number}")
            except BadInput:
                return
            yield line, value
