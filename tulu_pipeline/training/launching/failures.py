"""What a rank that fails says to its run: short enough to arrive in one piece, whatever the error is."""

from __future__ import annotations

import json
from typing import Any

from tulu_pipeline.errors import TuluError

# Of their JSON. Together with the rest of the event they stay below the 4 KB that a pipe takes in one piece: longer
# lines of two ranks could mix, and would be no events then.
_WHAT_BYTES, _WHERE_BYTES, _FIX_BYTES = 2000, 800, 800
_CUT = " [...]"


def failure_event(rank: int, error: Exception) -> dict[str, Any]:
    """The event of an error that ended a rank; what is cut off here is in the log, with the traceback."""
    what, where, fix = f"{type(error).__name__}: {error}", "", ""
    if isinstance(error, TuluError):
        what, where, fix = error.what, error.where, error.fix
    return {
        "event": "failed",
        "rank": rank,
        "error": cut(what, _WHAT_BYTES),
        "where": cut(where, _WHERE_BYTES),
        "fix": cut(fix, _FIX_BYTES),
    }


def cut(text: str, most_bytes: int = _WHAT_BYTES) -> str:
    """The beginning of a text, so much that it has no more bytes as JSON in ASCII."""
    if _bytes(text) <= most_bytes:
        return text
    kept, left = 0, most_bytes - len(_CUT)
    for character in text:
        left -= _bytes(character)
        if left < 0:
            break
        kept += 1
    return text[:kept] + _CUT


def _bytes(text: str) -> int:
    return len(json.dumps(text)) - len('""')
