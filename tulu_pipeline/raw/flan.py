"""Rows of the FLAN collection as AI2 dumped it: objects with `inputs`, a prompt already phrased, and `targets`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tulu_pipeline.artifacts.canonical import sha256_text
from tulu_pipeline.artifacts.source import HubFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.fields import object_of, text_of
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import BrokenRow, Draw, RawRow

_SHOWN_DIGITS = 16


def published(path: str) -> HubFile:
    """A file of the dump, from where AI2 published parts of it."""
    return HubFile(repo="hamishivi/tulu_mix_store", path=path, revision="7508c5e92f6ebee594f3d60854970a0d0a9587a3")


def read_submixes(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """JSON lines, one file per submix; ids are `<file name without ending>_<hash of prompt and answer>`.

    So a row keeps its id wherever it stands, and rows that are alike have one id. A broken row is called by its number.
    """
    for name, path in files.items():
        stem = Path(name).stem
        for row in read_json_lines({name: path}):
            own = row.row_id if isinstance(row, BrokenRow) else _hash_of(row.value)
            yield replace(row, row_id=f"{stem}_{own}")


def draw_of_submixes(rows: Callable[[str], int], sampling: Literal["hash", "paper2023"] = "hash") -> Draw:
    """So many rows of each submix that `read_submixes` read."""
    return Draw(
        stratum=lambda row: row.row_id.rpartition("_")[0],
        parts=lambda submix: {"": rows(submix)},
        sampling=sampling,
        ids_repeat=True,
    )


def flan_conversation(dataset: str, row: RawRow) -> Conversation:
    """The prompt, on a line of its own unless it ends in a colon that asks to go on, and its answer."""
    fields = object_of(row.value)
    prompt, answer = text_of(fields, "inputs"), text_of(fields, "targets")
    if not prompt.endswith("\n") and not prompt.rstrip().endswith(":"):
        prompt += "\n"
    return Conversation(dataset, f"{dataset}_{row.row_id}", (Message("user", prompt), Message("assistant", answer)))


def _hash_of(value: object) -> str:
    told = [value.get("inputs"), value.get("targets")] if isinstance(value, dict) else value
    return sha256_text(json.dumps(told))[:_SHOWN_DIGITS]
