"""Verdicts kept one by one, so that a kill loses at most the programs under way."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tulu_pipeline.artifacts.json_lines import from_line, to_line
from tulu_pipeline.errors import BadInput
from tulu_pipeline.sandbox.program import Tier, Verdict

_SYNC_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A verdict and the tier it was reached in."""

    tier: Tier
    verdict: Verdict


class VerdictFile:
    """Verdicts by program, appended to a file; a context manager. One writer at a time.

    What a kill left unfinished at the end of the file is cut off; everything before stays byte for byte.

    Attributes:
        found: what is there, by program.
    """

    def __init__(self, path: Path) -> None:
        self.found: dict[str, Executed] = {}
        whole = 0
        if path.exists():
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        executed = from_line(line, Executed, f"{path}:{number}")
                    except BadInput:
                        break
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    self.found[executed.verdict.program_id] = executed
        self._file = path.open("ab")
        self._file.truncate(whole)
        self._synced = time.monotonic()

    def add(self, verdict: Verdict, tier: Tier) -> None:
        """Append one. It survives a kill of this process at once, a power cut within half a second."""
        executed = Executed(tier=tier, verdict=verdict)
        self._file.write(to_line(executed))
        self._file.flush()
        self.found[verdict.program_id] = executed
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
