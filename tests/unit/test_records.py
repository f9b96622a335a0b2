"""What an engine answered survives a kill, byte for byte."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.artifacts.append_file import AppendFile, read_appended
from tulu_pipeline.artifacts.json_lines import write_lines
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.inference.records import Question, Record, answered, completions

QUESTIONS = [Question(item_id=f"q{number}", prompts=(f"How much is {number} + 1?",)) for number in range(5)]


def record(number: int, text: str, sample: int = 0) -> Record:
    question = QUESTIONS[number]
    return Record(
        item_id=question.item_id,
        question_sha256=question.digest(),
        sample=sample,
        prompt_index=0,
        prompt_tokens=7,
        text=text,
        completion_tokens=3,
    )


def fill(path: Path, records: list[Record]) -> bytes:
    with AppendFile(path, Record) as file:
        for each in records:
            file.add(each)
    return path.read_bytes()


@given(cut=st.integers(0, 2_000), texts=st.lists(st.text(), min_size=5, max_size=5))
def test_a_file_cut_at_any_byte_goes_on_from_its_last_whole_record(
    cut: int, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    records = [record(number, text) for number, text in enumerate(texts)]
    whole = fill(path, records)
    path.write_bytes(whole[:cut])
    kept = list(read_appended(path, Record))
    assert kept == records[: whole[:cut].count(b"\n")]
    assert fill(path, records[len(kept) :]) == whole


def test_an_answer_to_another_question_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    fill(path, [record(0, "1"), record(1, "2")])
    now = {"q0": QUESTIONS[0].digest(), "q1": Question(item_id="q1", prompts=("How much is 1 + 1? ",)).digest()}
    assert list(answered(path, now)) == [("q0", 0)]


def test_completions_come_in_the_order_of_the_questions(tmp_path: Path) -> None:
    questions, records = tmp_path / "questions.jsonl", tmp_path / "records.jsonl"
    write_lines(questions, QUESTIONS)
    fill(records, [record(number, f"{number} {sample}", sample) for sample in (1, 0) for number in (3, 0, 4, 2, 1)])
    result = list(completions(questions, records, samples=2))
    assert [completion.item_id for completion in result] == ["q0", "q1", "q2", "q3", "q4"]
    assert [completion.texts for completion in result] == [(f"{number} 0", f"{number} 1") for number in range(5)]
    assert result[3].prompt == "How much is 3 + 1?"


def test_a_missing_sample_is_an_error_and_never_an_empty_text(tmp_path: Path) -> None:
    questions, records = tmp_path / "questions.jsonl", tmp_path / "records.jsonl"
    write_lines(questions, QUESTIONS)
    fill(records, [record(number, "x") for number in (0, 1, 3, 4)])
    with pytest.raises(StageFailed, match="item `q2` are missing"):
        list(completions(questions, records, samples=1))
