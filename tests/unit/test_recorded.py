"""Outputs recorded elsewhere become completions, and stored annotations replies; nothing is guessed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.recorded import recorded_completions
from tulu_pipeline.judging.replay import StoredAnnotations
from tulu_pipeline.judging.replies import verdict_of
from tulu_pipeline.scoring.multiple_choice import most_likely
from tulu_pipeline.specs.benchmark import Item

ITEMS = [Item(item_id="a", prompts=("Say hello.",)), Item(item_id="b", prompts=("Say bye.",))]
BY_ITEM = [{"item_id": "b", "completion": "Bye."}, {"item_id": "a", "completion": ["Hello.", "Hi."]}]
BY_INSTRUCTION = [{"instruction": "Say bye.", "output": "Bye."}, {"instruction": "Say hello.", "output": "Hello."}]


def write_lines(folder: Path, rows: list[Any]) -> Path:
    path = folder / "outputs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")
    return path


def write_list(folder: Path, rows: list[Any]) -> Path:
    path = folder / "outputs.json"
    path.write_text("\n" + json.dumps(rows, indent=1), encoding="utf-8")
    return path


@pytest.mark.parametrize("write", [write_lines, write_list])
def test_completions_come_in_the_order_of_the_items_whatever_the_files(write: Any, tmp_path: Path) -> None:
    by_item = list(recorded_completions(write(tmp_path, BY_ITEM), ITEMS))
    assert [(each.item_id, each.texts) for each in by_item] == [("a", ("Hello.", "Hi.")), ("b", ("Bye.",))]
    by_instruction = list(recorded_completions(write(tmp_path, BY_INSTRUCTION), ITEMS))
    assert [each.texts for each in by_instruction] == [("Hello.",), ("Bye.",)]


def test_an_item_without_an_output_is_an_error_or_empty_as_was_said(tmp_path: Path) -> None:
    path = write_lines(tmp_path, BY_ITEM[:1])
    with pytest.raises(BadInput, match="no output for 1 of 2 items: `a`"):
        list(recorded_completions(path, ITEMS))
    assert [each.texts for each in recorded_completions(path, ITEMS, missing_are_empty=True)] == [("",), ("Bye.",)]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([*BY_ITEM, BY_ITEM[0]], "item `b` is there twice"),
        ([{"item_id": "c", "completion": "x"}], "no item `c`"),
        ([{"item_id": "a"}], "the completion of `a` is no text"),
        ([{"item_id": "a", "completion": []}], "is no text"),
        ([{"item_id": "a", "completion": ["x", None]}], "is no text"),
        ([{"instruction": "Say nothing.", "output": "x"}], "a row that names no item"),
        ([7], "a int, not an object"),
    ],
)
def test_a_row_that_fits_no_item_is_told_with_its_place(rows: list[Any], told: str, tmp_path: Path) -> None:
    for path in (write_lines(tmp_path, rows), write_list(tmp_path, rows)):
        with pytest.raises(BadInput, match=told) as refused:
            list(recorded_completions(path, ITEMS, missing_are_empty=True))
        assert str(path) in refused.value.where


def test_broken_json_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"item_id": "a", "completion": "x"}\n{"item_id":\n')
    with pytest.raises(BadInput, match="broken JSON") as refused:
        list(recorded_completions(path, ITEMS))
    assert refused.value.where == f"{path}:2"


def annotations(folder: Path, *preferences: Any) -> Path:
    path = folder / "annotations.json"
    rows = [
        {"instruction": "q", "output_1": "theirs", "output_2": f"ours {number}", "preference": each, "annotator": "g"}
        for number, each in enumerate(preferences)
    ]
    path.write_text(json.dumps(rows))
    return path


def test_a_stored_annotation_is_found_by_the_very_output_it_is_about(tmp_path: Path) -> None:
    stored = StoredAnnotations([annotations(tmp_path, 1, 2.0, 0, 1.5, None)])
    verdicts = [verdict_of(stored.reply("q", f"ours {number}", "x")) for number in range(5)]
    assert verdicts == ["loss", "win", "tie", "tie", "unreadable"]
    for pair in (("q", "ours"), ("Q", "ours 1")):
        with pytest.raises(BadInput, match="no stored annotation"):
            stored.reply(*pair, "x")


def test_annotations_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for folder, preference in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        annotations(tmp_path / folder, preference)
    with pytest.raises(BadInput, match="two preferences"):
        StoredAnnotations([tmp_path / "one" / "annotations.json", tmp_path / "two" / "annotations.json"])
    with pytest.raises(BadInput, match="the preference 3"):
        StoredAnnotations([annotations(tmp_path, 3)])


def test_a_choice_is_a_letter(tmp_path: Path) -> None:
    item = Item(item_id="m", prompts=("?",), choices=("A", "B"))
    (found,) = recorded_completions(write_lines(tmp_path, [{"item_id": "m", "completion": " B"}]), [item])
    assert most_likely(found.choice_logprobs, item.choices) == "B"
    with pytest.raises(BadInput, match="`C` is no choice of item `m`"):
        list(recorded_completions(write_lines(tmp_path, [{"item_id": "m", "completion": "C"}]), [item]))
