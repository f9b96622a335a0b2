"""What the cards of data and of models share: tables, and how the hub writes licenses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tulu_pipeline.mixing.licenses import UNKNOWN, terms_of


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what a cell may not hold is escaped."""
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def hub_license(license_: str) -> str:
    """As the hub writes licenses: in small letters, `other` for those it may not know."""
    if license_ == UNKNOWN:
        return UNKNOWN
    return license_.lower() if terms_of(license_) is not None else "other"


def _cell(text: str) -> str:
    return re.sub(r"([|\\])", r"\\\1", text)
