"""Dolly's rows: Alpaca's under two other names."""

import json
import random
from pathlib import Path

import pytest

from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.datasets.dolly import DATASET
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.specs.dataset import RawRow, RowDropped

ROW = {"instruction": "Who?", "context": "", "response": "Ida.", "category": "open_qa"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"response": None}, "no `response`"),
        ({"response": ["Ida."]}, "`response` is no text"),
        ({"context": 3}, "`context` is no text"),
        ({"instruction": None}, "no `instruction`"),
    ],
)
def test_a_row_is_dropped_under_the_name_of_its_own_field(change: dict[str, object], reason: str) -> None:
    with pytest.raises(RowDropped) as dropped:
        DATASET.convert(RawRow("0", "", ROW | change), random.Random(0))
    assert str(dropped.value) == reason


@pytest.mark.parametrize("context", [{}, {"context": None}, {"context": " \n"}])
def test_a_row_without_a_passage_is_phrased_as_one_without_input(context: dict[str, object]) -> None:
    row = {key: value for key, value in ROW.items() if key != "context"} | context
    for seed in range(40):
        plain = DATASET.convert(RawRow("0", "", ROW), random.Random(seed))
        assert DATASET.convert(RawRow("0", "", row), random.Random(seed)) == plain


@pytest.mark.realdata
def test_each_published_row_keeps_its_three_texts_and_not_its_category(mirror: Path) -> None:
    dataset = DATASET.variant("sample")
    (name,) = dataset.sources
    path = mirror / "train" / "dolly" / name
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with_passage = 0
    for row, made in zip(raw, convert_rows(dataset, {name: path}, 42), strict=True):
        assert isinstance(made, Conversation)
        asked, answered = (message.content for message in made.messages)
        assert answered.strip() == row["response"].strip()
        start, found, rest = asked.partition(row["instruction"].strip())
        assert found
        assert row["context"].strip() in rest
        assert row["category"] not in start + rest.replace(row["context"].strip(), "")
        with_passage += bool(row["context"].strip())
    assert 0 < with_passage < len(raw)
