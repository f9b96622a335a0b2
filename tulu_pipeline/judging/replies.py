"""A judge's raw replies on disk: one per item, `replies.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.json_lines import read_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a judge said of one item, as it said it."""

    item_id: str
    reply: Mapping[str, Any]


def read_replies(path: Path) -> dict[str, Mapping[str, Any]]:
    """Replies by item."""
    return {reply.item_id: reply.reply for reply in read_lines(path, Reply)}
