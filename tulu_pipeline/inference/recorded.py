"""Outputs that were generated elsewhere, as completions.

Two forms of files: JSON lines of `{"item_id": …, "completion": …}`, where `completion` is a text or a list of them (one
per sample); and AlpacaEval's, one JSON list of `{"instruction": …, "output": …}`. Where
letters are to be chosen among, the completion is the letter. Half a character (a lone surrogate) becomes U+FFFD.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.json_lines import whole_characters
from tulu_pipeline.errors import BadInput, unknown_name
from tulu_pipeline.specs.benchmark import Completion, Item

_SHOWN = 5
_UNLIKELY = -100.0  # log probability of a letter that was not chosen; JSON has no infinity


def recorded_completions(
    path: Path, items: Iterable[Item], *, missing_are_empty: bool = False, called: str = ""
) -> Iterator[Completion]:
    """The completion of each item, in the order of the items.

    Args:
        path: of the recorded outputs.
        items: what was asked.
        missing_are_empty: what an item without an output gets: an empty completion, or an error.
        called: what errors call the file; "" for its path.

    Raises:
        BadInput: broken JSON, a row without its fields, two outputs of one item, an output of no item, an item without
            an output. Raised before anything is yielded.
    """
    asked, called = list(items), called or str(path)
    found = _by_item(path, called, {item.item_id: item for item in asked})
    lacking = [item.item_id for item in asked if item.item_id not in found]
    if lacking and not missing_are_empty:
        shown = ", ".join(f"`{each}`" for each in lacking[:_SHOWN]) + (", …" if len(lacking) > _SHOWN else "")
        raise BadInput(
            f"no output for {len(lacking)} of {len(asked)} items: {shown}",
            called,
            "add their rows, or ask fewer items",
        )
    for item in asked:
        texts = found.get(item.item_id, ("",))
        if item.choices:
            yield _chosen(item, texts[0].strip(), called)
            continue
        yield Completion(
            item_id=item.item_id, texts=texts, finish_reasons=("stop",) * len(texts), prompt=item.prompts[0]
        )


def _chosen(item: Item, letter: str, where: str) -> Completion:
    if letter not in item.choices:
        fix = f"write one of {', '.join(item.choices)}"
        raise BadInput(f"`{letter}` is no choice of item `{item.item_id}`", where, fix)
    logprobs = {choice: 0.0 if choice == letter else _UNLIKELY for choice in item.choices}
    return Completion(item_id=item.item_id, choice_logprobs=logprobs, prompt=item.prompts[0])


def _by_item(path: Path, called: str, items: Mapping[str, Item]) -> dict[str, tuple[str, ...]]:
    by_instruction = {item.prompts[0]: item.item_id for item in items.values()}
    found: dict[str, tuple[str, ...]] = {}
    for where, row in _rows(path, called):
        if "item_id" in row:
            item_id, output = row["item_id"], row.get("completion")
            if item_id not in items:
                raise BadInput(f"no item `{item_id}`", where, unknown_name("item", str(item_id), items).fix)
        else:
            instruction, output = row.get("instruction"), row.get("output")
            item_id = by_instruction.get(instruction) if isinstance(instruction, str) else None
            if item_id is None:
                raise BadInput("a row that names no item", where, "write `item_id` and `completion` in it")
        texts = (output,) if isinstance(output, str) else output
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
            raise BadInput(f"the completion of `{item_id}` is no text", where, "write a text, or a list of texts")
        if item_id in found:
            raise BadInput(f"item `{item_id}` is there twice", where, "leave one of them out")
        found[item_id] = tuple(map(whole_characters, texts))
    return found


def _rows(path: Path, called: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place; a file that begins with `[` is one JSON list."""
    with path.open(encoding="utf-8") as lines:
        first = next((line for line in lines if line.strip()), "")
        lines.seek(0)
        if first.lstrip().startswith("["):
            rows: Iterable[tuple[str, Any]] = (
                (f"{called}, row {index}", row) for index, row in enumerate(_parsed(lines.read(), called))
            )
        else:
            numbered = ((number, line) for number, line in zip(itertools.count(1), lines, strict=False) if line.strip())
            rows = ((f"{called}:{number}", _parsed(line, f"{called}:{number}")) for number, line in numbered)
        for where, row in rows:
            if not isinstance(row, dict):
                raise BadInput(f"a {type(row).__name__}, not an object", where, "write one JSON object for each item")
            yield where, row


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"broken JSON: {error.msg}", where, "mend the file") from error
