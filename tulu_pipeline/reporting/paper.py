"""The paper's published Tables 3, 6 and 7, so that ours can stand beside them.

Wang et al., "How Far Can Camels Go? Exploring the State of Instruction Tuning on Open Resources", 2023. Only what the
paper prints: a value that is not there is None, and none is derived.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

_VALUES = Path(__file__).with_name("paper_values.json")
_UNTUNED = "untuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedColumn:
    """One column of a table of the paper.

    Attributes:
        table: its number.
        base_model: what was tuned; "" where the rows name models themselves.
        metric: id, or `average`.
        percent: mixture (`untuned` for the base model itself), or model, to the value in points.
    """

    table: int
    base_model: str
    metric: str
    percent: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
    """A number of the paper that stands beside one of ours.

    Attributes:
        row: name of our row.
        metric: id, or `average`.
        percent: what the paper prints, in points.
    """

    row: str
    metric: str
    percent: float


@functools.cache
def published_columns() -> tuple[PublishedColumn, ...]:
    """All columns, in the paper's order."""
    document = json.loads(_VALUES.read_text(encoding="utf-8"))
    return tuple(PublishedColumn(**column) for column in document["columns"])


def published_percent(*, base_model: str, mixture: str, metric: str) -> float | None:
    """What the paper prints for a model and metric, in points; None where it prints nothing.

    Args:
        base_model: `llama-13b`, or `chatgpt` and `gpt4`.
        mixture: what it was tuned on; "" for the model itself.
        metric: id, or `average`.
    """
    return _index().get((base_model, mixture, metric))


@functools.cache
def _index() -> dict[tuple[str, str, str], float]:
    index = {}
    for column in published_columns():
        for row, percent in column.percent.items():
            if column.base_model:
                key = (column.base_model, "" if row == _UNTUNED else row, column.metric)
            else:
                key = (row, "", column.metric)
            index[key] = percent
    return index
