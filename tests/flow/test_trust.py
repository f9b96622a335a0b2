"""What a run survives: kill -9 in each long stage, and another process at the same store."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.processes import kill_once, left_behind, start, tulu_json

pytestmark = pytest.mark.timeout(600)

SHORT = """
from dataclasses import replace
from tulu_pipeline.experiments.demo import EXPERIMENT as DEMO
from tulu_pipeline.specs.mixture import single

EXPERIMENT = replace(
    DEMO,
    name="short",
    mixtures=(single("arithmetic"),),
    untuned=False,
    recipe=replace(DEMO.recipe, max_steps=120),
    judges={},
    recipes={},
    benchmarks={"gsm": ("gsm_cot",)},
    item_limit={"gsm_cot": 60},
    engine="transformers",
)
"""
PROFILE = "ranks = 2\ncheckpoint_every_steps = 20\n"
RUN = ("run", "short.py", "--runner", "local", "--profile", "small.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "short.py").write_text(SHORT)
    (tmp_path / "small.toml").write_text(PROFILE)
    return tmp_path


def working_on(folder: Path, stage: str) -> bool:
    return any((folder / "store" / "data" / stage).glob("*-*"))


def has_lines(folder: Path, pattern: str, lines: int) -> bool:
    return any(len(path.read_bytes().splitlines()) >= lines for path in (folder / "store" / "work").glob(pattern))


def has_state(folder: Path) -> bool:
    return has_lines(folder, "finetune/*/steps.jsonl", 30)


def kill_and_go_on(folder: Path, ready: Callable[[], bool], published: set[str]) -> list[str]:
    """Kill a run at the moment, then run the same command; returns what the second run made."""
    kill_once(start(*RUN, cwd=folder), ready)
    assert left_behind(folder) == []
    done = tulu_json(*RUN, cwd=folder)
    assert done["failed"] == []
    assert not published & set(done["executed"])
    assert tulu_json("verify", cwd=folder)["bad"] == []
    return list(done["executed"])


def test_a_run_killed_in_tokenize_and_finetune_and_generate_goes_on(folder: Path) -> None:
    data = {"download[arithmetic]", "normalize[arithmetic]"}
    kill_once(start(*RUN, "--until", "tokenize", cwd=folder), lambda: working_on(folder, "tokenize"))
    assert left_behind(folder) == []

    kill_once(start(*RUN, cwd=folder), lambda: has_state(folder))
    assert left_behind(folder) == []
    steps_before = sum(1 for _ in next((folder / "store" / "work").glob("finetune/*/steps.jsonl")).open())
    assert steps_before >= 30

    kill_once(start(*RUN, cwd=folder), lambda: has_lines(folder, "generate/*/records.jsonl", 5))
    assert left_behind(folder) == []
    (checkpoint,) = (folder / "store" / "refs" / "short").glob("finetune*")
    steps = [json.loads(line) for line in (checkpoint / "aux" / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, 121)), "a resumed training neither repeats nor skips"
    assert "resumed after step" in (folder / "run.log").read_text()
    (records,) = (folder / "store" / "work").glob("generate/*/records.jsonl")
    recorded = records.read_bytes().rpartition(b"\n")[0]

    done = tulu_json(*RUN, cwd=folder)
    assert sorted(done["executed"]) == [
        "generate[tiny+arithmetic/gsm_cot]",
        "score[tiny+arithmetic/gsm_cot]",
        "tabulate[short]",
    ]
    assert not data & set(done["executed"])
    (completions,) = (folder / "store" / "refs" / "short").glob("generate*")
    texts = [json.loads(line)["item_id"] for line in (completions / "completions.jsonl").read_text().splitlines()]
    assert len(texts) == len(set(texts)) == 60
    assert recorded
    assert tulu_json("verify", cwd=folder)["bad"] == []
    assert tulu_json(*RUN, cwd=folder)["executed"] == []


def test_two_processes_at_one_store_make_each_artifact_once(folder: Path) -> None:
    words = ("run", "short.py", "--until", "tokenize", "--runner", "local", "--json")
    runs = [start(*words, cwd=folder) for _ in range(2)]
    assert [run.wait(300) for run in runs] == [0, 0], (folder / "run.log").read_text()
    log = (folder / "run.log").read_text()
    downloads = "download[arithmetic]", "download[tiny-tokenizer]"
    for name in (*downloads, "normalize[arithmetic]", "tokenize[tiny+arithmetic]"):
        assert log.count(f"done {name} in") == 1, log
