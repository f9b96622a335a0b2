"""Rows that fell out of a stage or lost something in it: a file for people, one line per row, and counts by reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Literal

_SHOWN_CHARACTERS = 200


class RowLog:
    """Writes `<what>.jsonl` into a folder; use as a context manager.

    Attributes:
        by_reason: how many rows each reason met, in order of first appearance.
        first: where and why the first ten.
    """

    def __init__(self, folder: Path, what: Literal["dropped", "changed"]) -> None:
        self._file = (folder / f"{what}.jsonl").open("w", encoding="utf-8")
        self.by_reason: Counter[str] = Counter()
        self.first: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """Rows so far."""
        return self.by_reason.total()

    def add(self, *, row_id: str, where: str, reason: str, text: str = "") -> None:
        """Notes a row; `text` is its beginning, so that people recognize it."""
        self.by_reason[reason] += 1
        if len(self.first) < 10:
            self.first.append((where, reason))
        # ASCII, because a row may have been dropped for bytes that are no Unicode.
        row = {"row_id": row_id, "where": where, "reason": reason, "text": text[:_SHOWN_CHARACTERS]}
        self._file.write(json.dumps(row) + "\n")

    def __enter__(self) -> RowLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._file.close()
