"""What a store has of a dataset counts as current while its files, its code and its converter are those of then."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy_experiment import write_experiment

from flows.catalog import find_dataset, find_experiment
from flows.catalog_view import show_json
from flows.session import Request, prepare, run_in_threads
from flows.stored_counts import stored_dataset
from tulu_pipeline.artifacts.store import Store

_MIXTURES = """
WHOLE = Mixture(name="whole", components=(Component(dataset="birds"),))
DRAWN = Mixture(name="drawn", components=(Component(dataset="birds", cap=3),))
MIXED = Experiment(
    name="mixed", title="", hypothesis="", models=EXPERIMENT.models, mixtures=(WHOLE, DRAWN),
    benchmarks=EXPERIMENT.benchmarks, datasets=EXPERIMENT.datasets,
)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = Path(write_experiment(tmp_path))
    path.write_text(path.read_text() + _MIXTURES)
    return path


def store(toy: Path) -> Store:
    return Store(str(toy.parent / "store"))


def birds(toy: Path) -> dict[str, Any]:
    found = stored_dataset(find_dataset("birds", find_experiment(str(toy))), store(toy))
    assert found is not None
    return found


def changed(toy: Path) -> list[str]:
    found = birds(toy)
    assert found["current"] == (not found["changed_since"])
    return list(found["changed_since"])


def exact(toy: Path) -> list[bool]:
    """Whether the counts of the whole and of the drawn birds are those of what is there now."""
    return [show_json(f"{toy}:{name}", store(toy))["components"][0]["exact"] for name in ("WHOLE", "DRAWN")]


def make(toy: Path) -> list[str]:
    request = Request(experiment=f"{toy}:MIXED", store=str(toy.parent / "store"), only="mix[drawn/birds]")
    result = run_in_threads(prepare(request))
    assert not result.failed
    return result.executed


def test_rows_that_were_edited_are_told_until_they_are_made_anew(toy: Path) -> None:
    make(toy)
    raw = toy.parent / "birds.json"
    rows = json.loads(raw.read_text())
    assert (birds(toy)["kept"], changed(toy), exact(toy)) == (5, [], [True, True])
    raw.write_text(json.dumps(rows[1:]))
    assert (birds(toy)["kept"], changed(toy), exact(toy)) == (5, ["birds.json"], [False, False])
    make(toy)
    assert (birds(toy)["kept"], changed(toy), exact(toy)) == (4, [], [True, True])
    raw.write_text(json.dumps(rows))
    assert (birds(toy)["kept"], changed(toy), exact(toy)) == (5, [], [True, True])
    raw.unlink()
    assert (changed(toy), exact(toy)) == (["birds.json"], [False, False])


def test_files_that_give_the_same_conversations_leave_what_was_drawn_of_them_current(toy: Path) -> None:
    make(toy)
    raw = toy.parent / "birds.json"
    raw.write_text(json.dumps(json.loads(raw.read_text()), indent=1))
    assert exact(toy) == [False, False]
    assert make(toy) == ["download[birds]", "normalize[birds]"]
    assert (changed(toy), exact(toy)) == ([], [True, True])


def test_code_that_was_edited_is_told_and_a_comment_is_no_edit(toy: Path) -> None:
    make(toy)
    code = toy.read_text()
    toy.write_text(f"# mine\n{code}")
    assert (changed(toy), exact(toy)) == ([], [True, True])
    toy.write_text(f"{code}\nSALT = 1\n")
    assert (changed(toy), exact(toy)) == (["the code of toy.py"], [False, False])
    toy.write_text(code.replace("converter_version=1", "converter_version=20"))
    assert changed(toy) == ["converter version 1 → 20", "the code of toy.py"]
