"""A judge's raw replies on disk: one per item, `replies.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.judging.false_evaluator import WIN_SHARE, Verdict

Undefined = Literal["unreadable", "missing"]

# 1: the reference, 2: the model, 1.5: neither; null: the judge said nothing that could be read.
_PREFERENCES: Mapping[float | None, Verdict | Undefined] = {
    1: "loss",
    1.5: "tie",
    2: "win",
    None: "unreadable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a judge said of one item, as it said it."""

    item_id: str
    reply: Mapping[str, Any]


def verdict_of(reply: Mapping[str, Any]) -> Verdict | Undefined | None:
    """Who won a comparison, of a reply that holds a `verdict`, or AlpacaEval's `preference`; None where neither is.

    "missing" where the judge could not be asked (`api_error`), "unreadable" where it said nothing that could be read.
    """
    if "api_error" in reply:
        return "missing"
    if "preference" in reply:
        return _PREFERENCES.get(reply["preference"])
    verdict: Verdict | None = reply.get("verdict")
    return verdict if verdict in WIN_SHARE else None


def read_replies(path: Path) -> dict[str, Mapping[str, Any]]:
    """Replies by item."""
    return {reply.item_id: reply.reply for reply in read_lines(path, Reply)}
