"""Rows of the FLAN collection as AI2 dumped it: objects with `inputs`, a prompt already phrased, and `targets`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.fields import object_of, text_of
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import BrokenRow, RawRow


def read_submixes(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """JSON lines, one file per submix; ids are `<file name without ending>_<number in the file>`."""
    for name, path in files.items():
        for row in read_json_lines({name: path}):
            yield replace(row, row_id=f"{Path(name).stem}_{row.row_id}")


def submix_of(row: RawRow) -> str:
    """The submix of a row that `read_submixes` read."""
    return row.row_id.rpartition("_")[0]


def flan_conversation(dataset: str, row: RawRow) -> Conversation:
    """The prompt, on a line of its own unless it ends in a colon that asks to go on, and its answer."""
    fields = object_of(row.value)
    prompt, answer = text_of(fields, "inputs"), text_of(fields, "targets")
    if not prompt.endswith("\n") and not prompt.rstrip().endswith(":"):
        prompt += "\n"
    return Conversation(dataset, f"{dataset}_{row.row_id}", (Message("user", prompt), Message("assistant", answer)))
