"""Values kept one by one as they come, so that a kill loses at most those under way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from tulu_pipeline.artifacts.json_lines import from_line, to_line
from tulu_pipeline.errors import BadInput

T = TypeVar("T")
_SYNC_SECONDS = 0.5


class AppendFile(Generic[T]):
    """Appends values, a JSON line each; a context manager. One writer at a time.

    What a kill left unfinished at the end of the file is cut off; everything before stays byte for byte.

    Attributes:
        found: what is there, in the file's order.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.found: list[T] = []
        whole = 0
        if path.exists():
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        value = from_line(line, kind, f"{path}:{number}")
                    except BadInput:
                        break
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    self.found.append(value)
        self._file = path.open("ab")
        self._file.truncate(whole)
        self._synced = time.monotonic()

    def add(self, value: T) -> None:
        """Append one. It survives a kill of this process at once, a power cut within half a second."""
        self._file.write(to_line(value))
        self._file.flush()
        self.found.append(value)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync()
        self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()
