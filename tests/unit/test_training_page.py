"""The page of the trainings: what it says of a whole record, of an older one and of none."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fakes.sample_results import COLUMNS, ROWS, write_results
from fakes.sample_trainings import STEPS, write_trainings
from hypothesis import given
from hypothesis import strategies as st

from flows.graph import graph_of
from tasks.tabulate import TabulateParams, run_tabulate, training_input
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.experiments import demo, table1
from tulu_pipeline.profile import Profile
from tulu_pipeline.reporting.trainings import POINTS, thinned
from tulu_pipeline.settings import read_settings


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    folder = tmp_path_factory.mktemp("inputs")
    return write_results(folder, items=3) | write_trainings(folder / "trainings")


def tabulate(inputs: dict[str, Path | None], out: Path) -> Path:
    out.mkdir(parents=True)
    params = TabulateParams(title="Sample", rows=ROWS, columns=COLUMNS)
    job = Job(
        name="tabulate[sample]", params=params, inputs=inputs, sources={}, out=out, work=out.parent / "work",
        publish=lambda metrics: None,
    )  # fmt: skip
    run_tabulate(job, RunContext(profile=Profile(), settings=read_settings()))
    return out


@pytest.fixture(scope="module")
def out(inputs: dict[str, Path | None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tabulate(inputs, tmp_path_factory.mktemp("made") / "out")


@pytest.fixture(scope="module")
def page(out: Path) -> dict[str, Any]:
    text = (out / "report" / "data" / "trainings.js").read_text(encoding="ascii")
    (literal,) = re.findall(r'JSON\.parse\(("(?:[^"\\]|\\.)*")\)', text)
    return dict(json.loads(json.loads(literal)))


def test_each_training_has_a_line_and_one_that_is_missing_says_so(page: dict[str, Any]) -> None:
    assert [(line["name"], line["cells"] is None) for line in page["lines"]] == [
        ("tiny+arithmetic", False), ("tiny+facts", False), ("tiny+both", True),
    ]  # fmt: skip
    cells = dict(zip(page["headings"], page["lines"][0]["cells"], strict=True))
    assert cells["Steps"] == f"{STEPS}"
    assert cells["Hardware"] == "8 × AMD EPYC", "four on each of two nodes"
    assert (cells["Tokens/s"], cells["Time"], cells["Memory"]) == ("16,000", "1.3 min", "1.5 GiB")
    assert cells["Held-out loss"] == "7.500 → 0.501"
    assert "MFU" not in cells, "nobody measured it"


def test_a_record_of_an_older_release_shows_what_it_has(page: dict[str, Any]) -> None:
    line = page["lines"][1]
    cells = dict(zip(page["headings"], line["cells"], strict=True))
    assert (cells["Steps"], cells["Hardware"], cells["Memory"]) == ("30", "", "")
    assert set(line["curves"]) == {"loss", "grad_norm", "learning_rate", "tokens_per_second"}
    assert line["curves"]["learning_rate"][0] == [1, pytest.approx(4e-3 / 30, rel=1e-5)]


def test_curves_have_few_points_and_end_with_the_last_step(page: dict[str, Any]) -> None:
    curves = page["lines"][0]["curves"]
    assert len(curves["loss"]) == POINTS
    assert curves["loss"][-1][0] == STEPS
    assert [step for step, _ in curves["held_out_loss"]] == list(range(0, STEPS + 1, 100))


def test_links_lead_to_pages_alone(page: dict[str, Any]) -> None:
    assert page["lines"][0]["addresses"] == ["https://tracker.example/runs/1"]


def test_the_table_of_costs_is_there_for_people_and_for_programs(out: Path) -> None:
    shown = (out / "training.md").read_text()
    assert re.search(r"^\| tiny\+arithmetic \| 800 \| 4 \| 1,280,000 \|", shown, re.MULTILINE)
    assert re.search(r"^\| tiny\+both \| missing \|", shown, re.MULTILINE)
    with open(out / "training.csv") as lines:
        rows = {row["model"]: row for row in csv.DictReader(lines)}
    assert (rows["tiny+arithmetic"]["tokens"], rows["tiny+arithmetic"]["status"]) == ("1280000", "trained")
    assert (rows["tiny+both"]["tokens"], rows["tiny+both"]["status"]) == ("", "missing")
    assert rows["tiny+facts"]["memory_bytes"] == ""


def test_the_results_lead_to_the_page_only_where_it_is(
    inputs: dict[str, Path | None], out: Path, tmp_path: Path
) -> None:
    without = tabulate(
        {name: path for name, path in inputs.items() if not name.startswith("training:")}, tmp_path / "out"
    )
    assert not (without / "report" / "training.html").exists()
    assert not (without / "training.md").exists()
    for made, there in ((out, True), (without, False)):
        table = (made / "report" / "data" / "table.js").read_text()
        assert ('\\"training_page\\":\\"training.html\\"' in table) is there


def test_the_table_follows_from_the_checkpoints_that_were_trained_for_it() -> None:
    table = graph_of(demo.EXPERIMENT).by_name["tabulate[demo]"]
    for mixture in ("arithmetic", "facts"):
        assert table.inputs[training_input(f"tiny+{mixture}")].name == f"finetune[tiny+{mixture}]"
    assert training_input("tiny") not in table.inputs
    assert not [name for name in graph_of(table1.EXPERIMENT).by_name if name.startswith("finetune")]


@given(values=st.lists(st.floats(-1e6, 1e6), max_size=1500), most=st.integers(1, 400))
def test_thinning_keeps_the_mean_and_the_last_step(values: list[float], most: int) -> None:
    points = list(enumerate(values, start=1))
    few = thinned(points, most)
    assert len(few) == min(len(points), most)
    assert [step for step, _ in few] == sorted({step for step, _ in few})
    if points:
        assert few[-1][0] == len(points)
    if len(points) <= most:
        assert few == points
    if len(points) % most == 0 and points:
        mean = sum(values) / len(values)
        assert sum(value for _, value in few) / len(few) == pytest.approx(mean, rel=1e-6, abs=1e-3)


def test_prefect_shows_how_a_training_went_and_where_it_is_tracked(inputs: dict[str, Path | None]) -> None:
    from tasks.prefect_ui import made_markdown

    manifest = Manifest(
        key="k", name="finetune[tiny+arithmetic]", stage="finetune", identity={}, payload="data", digest="d",
        outputs=(), metrics={"tracked_at": ["https://tracker.example/runs/1", "javascript:1"]},
    )  # fmt: skip
    shown = made_markdown(manifest.name, manifest, "link", inputs["training:tiny+arithmetic"])
    assert "- [https://tracker.example/runs/1](https://tracker.example/runs/1)" in shown
    assert "[javascript" not in shown
    assert shown.splitlines()[-1].startswith(f"| {STEPS} | 0.")
    assert "How it went" not in made_markdown(manifest.name, manifest, "link")
