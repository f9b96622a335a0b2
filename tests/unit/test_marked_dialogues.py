"""Baize's dialogues, one string with marks before each turn: what becomes a round, and what is told of the rest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.datasets.baize import DATASET
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.specs.dataset import BrokenRow, ChangedRow, RawRow


def made_of(text: object) -> list[Conversation | BrokenRow | ChangedRow]:
    row = RawRow("3", "quora_chat_data.json:1", {"topic": "t", "input": text})
    return list(convert_rows(replace(DATASET, read=lambda files: iter([row])), {}, 42))


def turns(conversation: Any) -> list[str]:
    return [message.content for message in conversation.messages]


def test_the_preamble_and_the_last_empty_mark_are_no_turns() -> None:
    (conversation,) = made_of("A chat.\n[|Human|] One? \n[|AI|]\nFirst.\n[|Human|]Two?[|AI|] Second.\n[|Human|] ")
    assert turns(conversation) == ["One?", "First.", "Two?", "Second."]


@pytest.mark.parametrize(
    ("text", "kept", "reason"),
    [
        ("[|Human|] a [|AI|] b [|Human|] no answer", ["a", "b"], "no `[|AI|]` after a `[|Human|]`"),
        ("[|Human|] x [|Human|] a [|AI|] b", ["a", "b"], "no `[|AI|]` after a `[|Human|]`"),
        ("[|Human|] a [|AI|] b [|Human|] c [|AI|] d [|AI|] e", ["a", "b"], "2 `[|AI|]` after a `[|Human|]`"),
        ("[|Human|] [|AI|] b [|Human|] c [|AI|] d", ["c", "d"], "empty `[|Human|]`"),
    ],
)
def test_a_malformed_part_is_left_out_and_told_and_the_rest_goes_on(text: str, kept: list[str], reason: str) -> None:
    lost, conversation = made_of(text)
    assert isinstance(lost, ChangedRow)
    assert (lost.row_id, lost.reason) == ("3", reason)
    assert turns(conversation) == kept


def test_an_empty_answer_stays() -> None:
    (conversation,) = made_of("[|Human|] a [|AI|] [|Human|] ")
    assert turns(conversation) == ["a", ""]


@pytest.mark.parametrize(
    "text", ["", "no marks at all", "only [|AI|] an answer", "[|Human|] ", "[|Human|] a", "[|human|] a [|ai|] b"]
)
def test_a_dialogue_without_its_marks_is_dropped_once(text: str) -> None:
    (row,) = made_of(text)
    assert isinstance(row, BrokenRow)
    assert row.reason == "no round with `[|Human|]` and `[|AI|]`"
    (row,) = made_of(None)
    assert isinstance(row, BrokenRow)
    assert row.reason == "no `input`"


def test_ids_run_on_over_the_files_in_the_originals_order(tmp_path: Path) -> None:
    for name in DATASET.sources:
        (tmp_path / name).write_text(json.dumps([{"input": f"[|Human|] {name}? [|AI|] Yes."}]))
    made = list(convert_rows(DATASET, {name: tmp_path / name for name in DATASET.sources}, 42))
    parts = ("alpaca", "medical", "quora", "stackoverflow")
    assert [(row.id, turns(row)[0]) for row in made] == [
        (f"baize_{number}", f"{part}_chat_data.json?") for number, part in enumerate(parts)
    ]  # type: ignore[union-attr]


@pytest.mark.realdata
def test_each_round_of_the_published_rows_is_kept(mirror: Path) -> None:
    files = {"quora_chat_data.json": mirror / "train" / "baize" / "quora_chat_data.json"}
    rows = list(convert_rows(DATASET.variant("sample"), files, 42))
    assert len(rows) == 96
    assert all(isinstance(row, Conversation) for row in rows)
    rounds = sum(len(turns(row)) for row in rows) // 2
    assert rounds == files["quora_chat_data.json"].read_text(encoding="utf-8").count("[|AI|]") == 228
