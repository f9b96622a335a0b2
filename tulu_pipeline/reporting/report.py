"""The report folder: pages that open from disk, in which each cell of the table opens its items.

index.html  report.css  *.js     the viewer, copied from `static/`
data/table.js                    the table, as a call that registers it
data/<cell>.js                   the items of one cell, loaded when the cell is opened
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu_pipeline.judging.replies import read_replies
from tulu_pipeline.reporting.pages import DATA, DATA_PAGE, LENGTH_PAGE, TRAINING_PAGE, copy_viewer, script, slug
from tulu_pipeline.reporting.records import COMPLETIONS, ITEMS, REPLIES, read_completions, read_items, sha256_file
from tulu_pipeline.reporting.table import Table, to_json
from tulu_pipeline.reporting.text import legend
from tulu_pipeline.specs.benchmark import Completion, ItemScore


@dataclass(frozen=True, slots=True, kw_only=True)
class CellItems:
    """What a cell opens.

    Attributes:
        row: name of the row.
        metric: of the column.
        items: item scores in the benchmark's order.
        completions: by item id; an item without one shows its scores alone.
        replies: what a judge, or the run of a program, said of it, by item id.
        provenance: what the numbers rest on, for the foot of the page: name to digest or key.
    """

    row: str
    metric: str
    items: Iterable[ItemScore]
    completions: Mapping[str, Completion]
    replies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


def read_cell(
    row: str, metric: str, *, scores: Path, completions: Path | None, replies: Path | None = None
) -> CellItems:
    """A cell from its score folder and, where there are, its generate folder and that of the replies.

    The provenance is the files' sha256: it follows from the bytes alone, and the store's manifests lead on from it.
    """
    provenance = {ITEMS: sha256_file(scores / ITEMS)}
    by_id = {}
    if completions is not None:
        provenance[COMPLETIONS] = sha256_file(completions / COMPLETIONS)
        by_id = {completion.item_id: completion for completion in read_completions(completions)}
    said: Mapping[str, Mapping[str, Any]] = {}
    if replies is not None:
        provenance[REPLIES] = sha256_file(replies / REPLIES)
        said = read_replies(replies / REPLIES)
    return CellItems(
        row=row, metric=metric, items=read_items(scores), completions=by_id, replies=said, provenance=provenance
    )


def write_report(
    table: Table,
    cells: Iterable[CellItems],
    folder: Path,
    *,
    data: bool = False,
    training: bool = False,
    length: bool = False,
) -> None:
    """Writes the report; `cells` is consumed one by one, so that one cell's items are in memory at a time.

    Args:
        table: the results.
        cells: what its cells open.
        folder: of the report.
        data: whether there is a page of the data to lead to.
        training: whether there is one of the trainings.
        length: whether there is one of the length analysis.
    """
    copy_viewer(folder, results=True, data=data)
    slugs: dict[str, str] = {}
    provenance: dict[str, Mapping[str, str]] = {}
    for cell in cells:
        name = f"{cell.row}/{cell.metric}"
        slugs[name] = slug(name, taken=set(slugs.values()))
        provenance[name] = cell.provenance
        completions, replies = cell.completions, cell.replies
        items = _compact([_item(item, completions.get(item.item_id), replies.get(item.item_id)) for item in cell.items])
        (folder / DATA / f"{slugs[name]}.js").write_text(script("items", name, items), encoding="ascii")
    document = {
        "table": to_json(table),
        "legend": legend(table),
        "cells": slugs,
        "provenance": provenance,
        "data_page": DATA_PAGE if data else "",
        "training_page": TRAINING_PAGE if training else "",
        "length_page": LENGTH_PAGE if length else "",
    }
    (folder / DATA / "table.js").write_text(script("table", document), encoding="ascii")


def _item(item: ItemScore, completion: Completion | None, reply: Mapping[str, Any] | None) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": item.item_id,
        "group": item.group,
        "scores": {scorer: _finite(score) for scorer, score in item.scores.items()},
        "extracted": dict(item.extracted),
        "flags": list(item.flags),
        "gold": item.gold,
    }
    if reply is not None:
        shown["reply"] = dict(reply)
    if completion is not None:
        shown |= {
            "prompt": completion.prompt,
            "prompt_tokens": completion.prompt_tokens,
            "prompt_index": completion.prompt_index,
            "texts": list(completion.texts),
            "finish_reasons": list(completion.finish_reasons),
            "completion_tokens": list(completion.completion_tokens),
            "logprobs": {choice: _finite(value) for choice, value in completion.choice_logprobs.items()},
        }
    return shown


def _compact(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Front coding: a prompt becomes [UTF-16 units it shares with the prompt before it, the rest].

    Few-shot exemplars are then stored once per run of items, not once per item.
    """
    before = ""
    for item in items:
        prompt = item.get("prompt")
        if prompt is None:
            continue
        shared = _common_prefix(before, prompt)
        item["prompt"] = [len(prompt[:shared].encode("utf-16-le", "surrogatepass")) // 2, prompt[shared:]]
        before = prompt
    return items


def _common_prefix(left: str, right: str) -> int:
    """Length of the common prefix, by bisection on slices, which compare at memory speed."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[:middle] == right[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
