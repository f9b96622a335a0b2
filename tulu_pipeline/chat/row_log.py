"""Rows that fell out of a stage or lost something in it: a file for people, one line per row, and counts by reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Literal

from tulu_pipeline.errors import Tampered

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

    def add(self, *, row_id: str, where: str, reason: str, text: str = "", counted_as: str = "") -> None:
        """Notes a row.

        Args:
            row_id: its id.
            where: its place.
            reason: why, in full.
            text: its beginning, so that people recognize it.
            counted_as: the reason without what belongs to this row alone; "" counts the reason itself.
        """
        self.by_reason[counted_as or reason] += 1
        if len(self.first) < 10:
            self.first.append((where, reason))
        # ASCII, because a row may have been dropped for bytes that are no Unicode.
        row = {"row_id": row_id, "where": where, "reason": reason, "text": text[:_SHOWN_CHARACTERS]}
        self._file.write(json.dumps(row) + "\n")

    def __enter__(self) -> RowLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._file.close()


def read_reasons(folder: Path, what: Literal["dropped", "changed"]) -> Counter[str]:
    """How many rows each reason met, from the `<what>.jsonl` of a folder.

    Raises:
        Tampered: the file is not there, or is broken.
    """
    path = folder / f"{what}.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            return Counter(json.loads(line)["reason"] for line in lines)
    except (OSError, ValueError, KeyError) as error:
        raise Tampered(
            f"the {what} rows cannot be read: {error}", str(path), "`tulu run --refresh normalize` makes them again"
        ) from error
