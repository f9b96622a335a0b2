"""All twelve datasets of the paper, from files in their original formats to tokens: made once, and again one by one."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import tulu_json
from fakes.raw_formats import WRITERS, write_raw

from flows.catalog import DATASETS
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.raw.convert import convert_rows

_EXPERIMENT = """
import sys

sys.path.append({tests!r})

from pathlib import Path

from fakes.raw_formats import WRITERS, locally
from flows.catalog import DATASETS
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Component, Mixture

EXPERIMENT = Experiment(
    name="twelve",
    title="All datasets",
    hypothesis="each is made by itself",
    models=(FAMILY.model("tiny"),),
    mixtures=(Mixture(name="all", components=tuple(Component(dataset=name) for name in WRITERS)),),
    benchmarks={{"gsm": ("gsm_cot",)}},
    datasets=tuple(locally(DATASETS.get(name), Path(__file__).parent) for name in WRITERS),
)
"""
ROWS = 30


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with an experiment over all datasets, and their raw files."""
    for name in WRITERS:
        write_raw(tmp_path, name, rows=ROWS)
    (tmp_path / "twelve.py").write_text(_EXPERIMENT.format(tests=str(Path(__file__).parents[1])))
    return tmp_path


def run(folder: Path, until: str) -> dict[str, Any]:
    return tulu_json("run", "twelve.py", "--until", until, "--runner", "local", cwd=folder)


def test_the_files_have_the_names_of_the_originals_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    assert sorted(WRITERS) == DATASETS.names()
    for name in WRITERS:
        first, second = (write_raw(tmp_path / time, name) for time in ("one", "two"))
        assert {path.name for path in first.iterdir()} == set(DATASETS.get(name).sources)
        for path in first.iterdir():
            assert path.read_bytes() == (second / path.name).read_bytes()


def test_all_twelve_become_tokens_and_an_edit_of_one_remakes_that_one_alone(workshop: Path) -> None:
    stages = ("download", "normalize", "tokenize")
    made = set(run(workshop, "tokenize")["executed"])
    expected = {f"{stage}[{'tiny+' * (stage == 'tokenize')}{name}]" for stage in stages for name in WRITERS}
    assert made == expected | {"download[tiny-tokenizer]"}
    assert set(run(workshop, "describe")["executed"]) == {f"describe[{name}]" for name in WRITERS}
    for until in ("tokenize", "describe"):
        again = run(workshop, until)
        assert (again["executed"], again["failed"]) == ([], [])
        assert again["hit"] > 2 * len(WRITERS)

    write_raw(workshop, "dolly", rows=ROWS, seed=2)
    remade = {*run(workshop, "tokenize")["executed"], *run(workshop, "describe")["executed"]}
    assert remade == {"download[dolly]", "normalize[dolly]", "tokenize[tiny+dolly]", "describe[dolly]"}

    # A row that becomes the same conversation is tokenized no second time.
    raw = workshop / "dolly" / "databricks-dolly-15k.jsonl"
    raw.write_text(raw.read_text().replace('"category": "open_qa"', '"category": "closed_qa"', 1))
    assert set(run(workshop, "tokenize")["executed"]) == {"download[dolly]", "normalize[dolly]"}


def test_each_dataset_has_the_conversations_that_its_rows_hold(workshop: Path) -> None:
    kept: dict[str, list[Conversation]] = {}
    told: dict[str, Counter[str]] = {}
    for name in WRITERS:
        dataset = DATASETS.get(name)
        files = {source: workshop / name / source for source in dataset.sources}
        rows = list(convert_rows(dataset, files, 42, lambda texts: [len(text.split()) for text in texts]))
        kept[name] = [row for row in rows if isinstance(row, Conversation)]
        told[name] = Counter(row.reason for row in rows if not isinstance(row, Conversation))
        assert len({row.id for row in kept[name]}) == len(kept[name])
    one_each = ("dolly", "flan_v2", "self_instruct", "unnatural_instructions", "alpaca", "code_alpaca", "gpt4_alpaca")
    assert {name: len(kept[name]) for name in one_each} == dict.fromkeys(one_each, ROWS)
    assert not any(told[name] for name in (*one_each, "cot"))
    assert told["super_ni"] == {"made of MMLU's questions": 1}
    assert len(kept["cot"]) == 2 * ROWS
    assert len(kept["super_ni"]) == 80 + ROWS
    assert len(kept["baize"]) == 4 * ROWS
    assert told["baize"] == {"no `[|AI|]` after a `[|Human|]`": 4 * 4}
    assert max(len(row.messages) for row in kept["oasst1"]) == 4
    assert told["oasst1"]["question that nobody answered"] > 0
    assert max(len(row.messages) for row in kept["sharegpt"]) > 8
    assert told["sharegpt"]["begins with an answer"] >= 2 * 4
    assert told["sharegpt"]["last round, which the splitter loses"] > 0
