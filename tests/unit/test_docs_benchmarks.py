"""docs/benchmarks.md names what there is, and its code runs."""

import re
from pathlib import Path
from typing import Any

import pytest
from doc_pages import blocks, page

from flows.catalog import BENCHMARKS

TEXT = page("benchmarks")
TITLES = {"Codex-Eval": "codex_eval", "AlpacaEval": "alpaca_eval"}


def test_every_benchmark_has_its_section() -> None:
    sections = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert sorted(TITLES.get(section, section.lower()) for section in sections) == BENCHMARKS.names()


def test_the_metrics_it_names_are_settings() -> None:
    known = {setting.metric for benchmark in BENCHMARKS.all() for setting in benchmark.settings}
    names = {
        name
        for name in re.findall(r"`(\w+)`", TEXT)
        if name.split("_")[0] in {"mmlu", "gsm", "bbh", "tydiqa", "toxigen"}
    }
    assert names
    assert names <= known | {"toxigen_roberta"}


@pytest.mark.parametrize("code", blocks(TEXT))
def test_its_code_runs(code: str, tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt"):
        (folder / name).write_text("{}")
    values: dict[str, Any] = {"__file__": str(tmp_path / "experiment.py")}
    exec(compile(code, "docs/benchmarks.md", "exec"), values)
    assert {"own_benchmarks", "judges"} & values.keys()
