"""Table 1: what is compared with the paper and what is not, how it prints, and what tabulate writes of it."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.sample_data import DATA, HOSTILE, write_described
from fakes.sample_results import COLUMNS, ROWS, write_results
from rich.console import Console

from flows.catalog import find_experiment
from flows.graph import graph_of
from tasks.tabulate import TabulateParams, data_input, run_tabulate
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.errors import BadInput, Tampered
from tulu_pipeline.profile import Profile
from tulu_pipeline.reporting.data_figure import cut_position
from tulu_pipeline.reporting.data_table import (
    COLUMNS as QUANTITIES,
)
from tulu_pipeline.reporting.data_table import (
    DataRow,
    DataTable,
    build_data_table,
    compare,
    number,
    read_data_table,
)
from tulu_pipeline.reporting.data_text import data_to_csv, data_to_markdown
from tulu_pipeline.reporting.terminal import render_data_table
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.model import PretrainedTokenizer
from tulu_pipeline.tokens.statistics import LENGTH_BINS, Statistics


def statistics(name: str, **changes: Any) -> Statistics:
    whole = Statistics(
        dataset=name,
        tokenizer_fingerprint="f" * 64,
        instances=52_002,
        mean_rounds=1.0,
        mean_prompt_tokens=27.8412,
        mean_completion_tokens=65.25,
        messages={"user": 52_002, "assistant": 52_002},
        message_tokens={"user": 1_447_798, "assistant": 3_393_130},
        rounds=((1.0, 52_002),),
        lengths=(0,) * 8 + (52_002,) + (0,) * (len(LENGTH_BINS) - 8),
        longer_than={"512": 12, "768": 3, "1024": 1, "1536": 0, "2048": 0, "4096": 0},
        longest=(),
        max_length_tokens=2048,
        tokens=6_000_000,
        supervised_tokens=3_500_000,
        truncated=0,
        nothing_to_learn=0,
        licenses={},
        languages={},
        dropped={},
        changed={},
    )
    return replace(whole, **changes)


MADE = {
    "alpaca": statistics("alpaca"),
    "code_alpaca:sample": statistics("code_alpaca:sample", instances=2_017, dropped={"no `output`": 1}),
    "own": statistics("own", mean_prompt_tokens=None, truncated=26_001, instances=52_002),
    "gone": None,
}


def table(tokenizer: str = "llama", *, papers: bool = True) -> DataTable:
    return build_data_table(
        title="Table 1", tokenizer=tokenizer, rows=DATA, statistics=MADE, papers_tokenizer=papers, notes=("capped",)
    )


def test_a_complete_dataset_is_compared_and_a_sample_is_not() -> None:
    lines = {line.spec.name: line for line in table().lines}
    instances, rounds, prompt, completion = QUANTITIES
    assert compare(table(), lines["alpaca"], instances).same
    assert compare(table(), lines["alpaca"], rounds).difference == 0
    assert compare(table(), lines["alpaca"], prompt).same  # 27.8412 prints as the paper's 27.8
    found = compare(table(), lines["alpaca"], completion)
    assert found.difference == pytest.approx(65.25 / 64.6 - 1)
    assert not found.same
    for column in QUANTITIES:
        assert compare(table(), lines["code_alpaca:sample"], column).difference is None
        assert compare(table(), lines["own"], column).paper is None
        assert compare(table(), lines["gone"], column).ours is None


def test_tokens_of_another_tokenizer_are_not_compared_with_the_papers() -> None:
    for name in ("tiny-10m", "llama"):  # whatever it is called
        found = table(name, papers=False)
        assert [compare(found, found.lines[0], column).difference for column in QUANTITIES] == [0, 0, None, None]
        assert f"Tokens are those of `{name}`" in data_to_markdown(found).replace("\\", "")


def test_only_the_papers_own_tokenizer_is_compared_with_it() -> None:
    def says(experiment: Experiment) -> bool:
        return graph_of(experiment).by_name["tabulate[table1]"].params.papers_tokenizer  # type: ignore[attr-defined, no-any-return]

    table1 = find_experiment("table1")
    assert says(table1)
    namesake = PretrainedTokenizer(name="llama", sources={"tokenizer.json": LocalFile(path="tokenizer.json")})
    assert not says(replace(table1, data_tokenizer=namesake))


def test_two_variants_of_a_dataset_are_told_apart() -> None:
    names = ("alpaca", "alpaca:fixed")
    rows = [DataRow(name=name, title="Alpaca", license="MIT") for name in names]
    found = build_data_table(title="", tokenizer="", rows=rows, statistics=dict.fromkeys(names, MADE["alpaca"]))
    assert len([line for line in data_to_markdown(found).splitlines() if line.startswith("| Alpaca |")]) == 2
    assert len([line for line in data_to_markdown(found).splitlines() if line.startswith("| Alpaca:fixed |")]) == 2


def test_table_1_in_markdown() -> None:
    assert data_to_markdown(table()) == (Path(__file__).parents[1] / "golden" / "data_table.md").read_text()


def test_table_1_in_csv_is_unrounded_and_leaves_out_what_there_is_not() -> None:
    rows = {row["dataset"]: row for row in csv.DictReader(io.StringIO(data_to_csv(table())))}
    assert float(rows["alpaca"]["mean_prompt_tokens"]) == 27.8412
    assert rows["alpaca"]["paper_instances"] == "52002"
    assert rows["alpaca"]["longer_than_512"] == "12"
    assert rows["own"]["mean_prompt_tokens"] == ""
    assert rows["own"]["paper_instances"] == ""
    assert (rows["gone"]["status"], rows["gone"]["instances"]) == ("missing", "")


def test_table_1_in_the_terminal_has_what_the_markdown_has() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render_data_table(table()))
    text = console.export_text()
    for wanted in ("52,002 =", "64.6 +1.0 %", "65.3", "2,017", "missing", "1 row dropped (no `output` 1)", "capped"):
        assert wanted in text


def test_a_row_that_is_neither_described_nor_missing_is_refused() -> None:
    described = {name: found for name, found in MADE.items() if name != "gone"}
    with pytest.raises(BadInput, match="asks for `gone`"):
        build_data_table(title="", tokenizer="", rows=DATA, statistics=described)


def test_numbers_round_ties_away_from_zero() -> None:
    assert [number(value, 1) for value in (1.25, 3.25, 0.05, 1234.5)] == ["1.3", "3.3", "0.1", "1,234.5"]


def test_the_cut_lies_between_the_bins_around_it() -> None:
    assert cut_position(4) == 1
    assert cut_position(2048) == LENGTH_BINS.index(2048) + 1
    assert LENGTH_BINS.index(1536) + 1 < cut_position(1800) < LENGTH_BINS.index(2048) + 1
    assert cut_position(10**9) == len(LENGTH_BINS)


def tabulate(out: Path, params: TabulateParams, inputs: dict[str, Path | None]) -> Any:
    out.mkdir(parents=True)
    job = Job(
        name="tabulate[sample]", params=params, inputs=inputs, sources={}, out=out, work=out.parent / "work",
        publish=lambda metrics: None,
    )  # fmt: skip
    return run_tabulate(job, RunContext(profile=Profile(), settings=read_settings()))


PARAMS = TabulateParams(title="Data", rows=(), columns=(), data=DATA, data_tokenizer="tiny", notes=("capped",))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, llama_like: Path) -> dict[str, Path | None]:
    folder = tmp_path_factory.mktemp("described")
    return {data_input(name): path for name, path in write_described(folder, llama_like).items()}


def test_an_experiment_of_data_alone_has_the_data_as_its_report(
    described: dict[str, Path | None], tmp_path: Path
) -> None:
    metrics = tabulate(tmp_path / "out", PARAMS, described)
    assert metrics == {"datasets": 4, "missing_datasets": ["gone"]}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"data_table.md", "data_table.csv", "data_table.json", "lengths.png", "report"}
    assert "datasets.js" in (tmp_path / "out" / "report" / "index.html").read_text()
    assert read_data_table(tmp_path / "out" / "data_table.json").missing() == ("gone",)
    again = tabulate(tmp_path / "again" / "out", PARAMS, dict(reversed(described.items())))
    assert again == metrics
    for path in sorted((tmp_path / "out").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "again" / "out" / path.relative_to(tmp_path / "out")).read_bytes()


def test_with_models_the_results_stay_the_index(described: dict[str, Path | None], tmp_path: Path) -> None:
    params = replace(PARAMS, rows=ROWS, columns=COLUMNS)
    metrics = tabulate(tmp_path / "out", params, described | write_results(tmp_path / "results", items=10))
    assert (metrics["cells"], metrics["datasets"]) == (16, 4)
    report = tmp_path / "out" / "report"
    assert "items.js" in (report / "index.html").read_text()
    assert "datasets.js" in (report / "data.html").read_text()
    assert "data.html" in (report / "data" / "table.js").read_text()
    assert {"table.md", "data_table.md"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_no_data_file_of_the_page_holds_markup_or_more_than_one_call(
    described: dict[str, Path | None], tmp_path: Path
) -> None:
    tabulate(tmp_path / "out", PARAMS, described)
    files = sorted((tmp_path / "out" / "report" / "data").rglob("*.js"))
    assert len(files) == 1 + 3
    for path in files:
        text = path.read_text(encoding="ascii")
        assert "<" not in text
        assert re.fullmatch(r'report\.(datasets|shown)\((JSON\.parse\("(?:[^"\\]|\\.)*"\)(, )?)+\);\n', text)
    (shown,) = (path for path in files if path.name == "own.js")
    literals = re.findall(r'JSON\.parse\(("(?:[^"\\]|\\.)*")\)', shown.read_text())
    name, records = (json.loads(json.loads(literal)) for literal in literals)
    assert name == "own"
    assert any(HOSTILE in "".join(record["texts"]) for record in records)


def test_statistics_that_are_damaged_are_named(described: dict[str, Path | None], tmp_path: Path) -> None:
    folder = tmp_path / "alpaca"
    folder.mkdir()
    (folder / "statistics.json").write_text("{}")
    with pytest.raises(Tampered, match="statistics cannot be read"):
        tabulate(tmp_path / "out", PARAMS, described | {data_input("alpaca"): folder})
