"""AlpacaEval's instructions with another model's answers as the reference."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.benchmarks.alpaca_eval import AGAINST_2048_TOKENS, BENCHMARK
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.benchmark import Item

ROWS = [
    {"instruction": "Draw.", "output": "short 0", "dataset": "koala"},
    {"instruction": "Mend it.\n\nI is.", "output": "short 1", "dataset": "oasst"},
]
REFERENCES = [
    {"instruction": "Mend it.", "input": "I is.", "generator": "long", "output": "\n\nlong 1"},
    {"instruction": "Draw.", "input": "", "generator": "long", "output": "\n\nlong 0"},
]


def items(folder: Path, references: list[dict[str, Any]]) -> list[Item]:
    (folder / "model_outputs.json").write_text(json.dumps(ROWS))
    (folder / "reference_outputs.json").write_text(json.dumps(references))
    setting = AGAINST_2048_TOKENS.setting("alpaca_eval_against_2048_tokens")
    return list(AGAINST_2048_TOKENS.items(AGAINST_2048_TOKENS.files(folder), setting))


def test_a_reference_is_found_by_its_instruction_and_kept_as_it_was_written(tmp_path: Path) -> None:
    assert [(item.item_id, item.prompts, item.gold, item.group) for item in items(tmp_path, REFERENCES)] == [
        ("alpaca_eval_0", ("Draw.",), "\n\nlong 0", "koala"),
        ("alpaca_eval_1", ("Mend it.\n\nI is.",), "\n\nlong 1", "oasst"),
    ]


def test_an_instruction_without_a_reference_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no answer to the instruction of row 0"):
        items(tmp_path, REFERENCES[:1])
    with pytest.raises(BadInput, match="no text in `output`"):
        items(tmp_path, [{"instruction": "Draw."}])


def test_without_such_a_file_the_benchmarks_own_answers_are_the_reference(tmp_path: Path) -> None:
    items(tmp_path, REFERENCES)
    found = BENCHMARK.items(BENCHMARK.files(tmp_path), BENCHMARK.setting("alpaca_eval"))
    assert [item.gold for item in found] == ["short 0", "short 1"]


def test_the_column_says_what_it_is_against() -> None:
    titles = [setting.title for setting in AGAINST_2048_TOKENS.settings]
    assert titles == ["AlpacaEval, against 2,048 tokens", "AlpacaEval, by unique tokens, against 2,048 tokens"]
