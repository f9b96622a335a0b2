"""Reads what the score and generate stages left: `metrics.json`, `items.jsonl`, `completions.jsonl`."""

from __future__ import annotations

import hashlib
import math
import sys
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tulu_pipeline.artifacts.json_lines import from_line, read_lines
from tulu_pipeline.errors import BadInput
from tulu_pipeline.judging.false_evaluator import WIN_SHARE
from tulu_pipeline.judging.replies import read_replies
from tulu_pipeline.reporting.build import Measurement
from tulu_pipeline.reporting.lengths import JudgedAnswer
from tulu_pipeline.reporting.table import GroupScore, Score
from tulu_pipeline.specs.benchmark import Completion, ItemScore

METRICS = "metrics.json"
ITEMS = "items.jsonl"
COMPLETIONS = "completions.jsonl"
REPLIES = "replies.jsonl"

# The score stage's words for intervals that account for groups, and for a mean of groups' means.
_CLUSTERED, _STRATIFIED = "clustered", "stratified"


class ScorerRecord(BaseModel):
    """One scorer's result in `metrics.json`; values in [0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    n: int
    standard_error: float | None
    low: float | None
    high: float | None
    method: str


class GroupRecord(BaseModel):
    """The headline value of one group of items, with its interval; None where one item does not tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    value: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""


class MetricsRecord(BaseModel):
    """`metrics.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    metric: str
    headline: str
    n: int
    scorers: Mapping[str, ScorerRecord]
    flags: Mapping[str, int]
    groups: Mapping[str, GroupRecord]
    adjusted: Mapping[str, ScorerRecord] = Field(default_factory=dict)


def read_measurement(folder: Path) -> Measurement:
    """A score folder as the table needs it: metrics, and each item's value by each scorer.

    Raises:
        BadInput: a file is missing or malformed, or an item lacks a scorer that `metrics.json` reports.
    """
    path = folder / METRICS
    metrics = from_line(_present(path).read_bytes(), MetricsRecord, str(path))
    if metrics.headline not in metrics.scorers:
        raise BadInput(f"the headline scorer `{metrics.headline}` has no result", str(path), _REMAKE)
    method = metrics.scorers[metrics.headline].method
    item_ids: list[str] = []
    clusters: list[str] = []
    values: dict[str, array[float]] = {scorer: array("d") for scorer in metrics.scorers}
    for item in read_items(folder):
        item_ids.append(sys.intern(item.item_id))  # shared by all models of a column
        if method in (_CLUSTERED, _STRATIFIED):
            clusters.append(sys.intern(item.group))
        for scorer, column in values.items():
            if scorer not in item.scores:
                raise BadInput(f"item `{item.item_id}` has no score by `{scorer}`", str(folder / ITEMS), _REMAKE)
            value = item.scores[scorer]
            column.append(math.nan if value is None else value)
    if len(item_ids) != metrics.n:
        what = f"{len(item_ids)} items, but `{METRICS}` counts {metrics.n}"
        raise BadInput(what, str(folder / ITEMS), _REMAKE)
    return Measurement(
        headline=metrics.headline,
        scores={
            name: Score(
                scorer=name,
                value=record.value,
                low=record.low,
                high=record.high,
                n=record.n,
                standard_error=record.standard_error,
                method=record.method,
            )
            for name, record in {**metrics.scorers, **metrics.adjusted}.items()
            if record.value is not None
        },
        item_ids=tuple(item_ids),
        clusters=tuple(clusters),
        macro=method == _STRATIFIED,
        item_scores=values,
        flags=metrics.flags,
        groups={
            name: GroupScore(n=group.n, value=group.value, low=group.low, high=group.high)
            for name, group in metrics.groups.items()
        },
    )


def read_items(folder: Path) -> Iterator[ItemScore]:
    """The items of a score folder, in file order."""
    return read_lines(_present(folder / ITEMS), ItemScore)


def read_completions(folder: Path) -> Iterator[Completion]:
    """The completions of a generate folder, in file order."""
    return read_lines(_present(folder / COMPLETIONS), Completion)


def read_judged_answers(judged: Path, counted: Path, completions: Path, headline: str) -> list[JudgedAnswer]:
    """What two evaluators said of one model's answers, for the items that both were given.

    Args:
        judged: score folder of the judge's verdicts.
        counted: folder of the false evaluator's replies.
        completions: folder of the answers.
        headline: the scorer whose values are taken.
    """
    replies = read_replies(_present(counted / REPLIES))
    characters = {completion.item_id: len(completion.texts[0]) for completion in read_completions(completions)}
    return [
        JudgedAnswer(
            item_id=item.item_id,
            win=item.scores[headline],
            false_win=WIN_SHARE[replies[item.item_id]["verdict"]],
            unique_tokens=replies[item.item_id]["unique_tokens"],
            reference_unique_tokens=replies[item.item_id]["reference_unique_tokens"],
            characters=characters[item.item_id],
        )
        for item in read_items(judged)
        if item.item_id in replies
    ]


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_REMAKE = "make it again: `tulu run EXPERIMENT --refresh score`"


def _present(path: Path) -> Path:
    if not path.exists():
        raise BadInput(f"there is no `{path.name}`", str(path), "check the store: `tulu verify`")
    return path
