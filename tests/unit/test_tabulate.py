"""The tabulate stage: what it writes, that its bytes follow from its inputs alone, and what it refuses."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.sample_results import COLUMNS, MISSING, ROWS, write_results
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.tabulate import TABULATE, TabulateParams, run_tabulate
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.errors import BadInput
from tulu_pipeline.profile import Profile
from tulu_pipeline.reporting.report import CellItems, write_report
from tulu_pipeline.reporting.table import read_table
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Completion, ItemScore

PARAMS = TabulateParams(title="Sample", rows=ROWS, columns=COLUMNS, notes=("capped",))


def tabulate(inputs: dict[str, Path | None], out: Path, params: TabulateParams = PARAMS):
    out.mkdir(parents=True)
    job = Job(
        name="tabulate[sample]", params=params, inputs=inputs, sources={}, out=out, work=out.parent / "work",
        publish=lambda metrics: None,
    )  # fmt: skip
    return run_tabulate(job, RunContext(profile=Profile(), settings=read_settings()))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def data_of(path: Path) -> list:
    """The arguments of the call in a data file of the report."""
    literals = re.findall(r'JSON\.parse\(("(?:[^"\\]|\\.)*")\)', path.read_text(encoding="ascii"))
    return [json.loads(json.loads(literal)) for literal in literals]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path | None]:
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def out(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    tabulate(inputs, out)
    return out


def test_it_writes_the_table_three_ways_a_figure_and_a_report(out):
    names = {path.name for path in out.iterdir()}
    assert names == {"table.md", "table.csv", "table.json", "groups.csv", "figure.png", "report"}
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((out / "report" / "data").glob("*.js"))) == 1 + 14  # the table, and each cell that could be made


def test_the_metrics_name_the_missing_cells(inputs, tmp_path):
    assert tabulate(inputs, tmp_path / "out") == {"cells": 16, "missing": 1, "missing_cells": [MISSING]}


def test_the_same_inputs_give_the_same_bytes_in_any_process(inputs, out, tmp_path):
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "sys.path.insert(0, sys.argv[2]); import json; from unit_module import tabulate;"
        "tabulate({k: v and Path(v) for k, v in json.loads(sys.argv[3]).items()}, Path(sys.argv[4]))"
    )
    (tmp_path / "unit_module.py").write_text(Path(__file__).read_text())
    backwards = {name: folder and str(folder) for name, folder in reversed(inputs.items())}
    subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parents[1]), str(tmp_path), json.dumps(backwards),
         str(tmp_path / "out")],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C", "MPLCONFIGDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert digests(tmp_path / "out") == digests(out)


def test_no_data_file_of_the_report_holds_markup_or_more_than_one_call(out):
    for path in (out / "report" / "data").iterdir():
        text = path.read_text(encoding="ascii")
        assert "<" not in text
        assert re.fullmatch(r'report\.(table|items)\((JSON\.parse\("(?:[^"\\]|\\.)*"\)(, )?)+\);\n', text)


def test_the_report_rests_on_the_digests_of_its_inputs(inputs, out):
    (document,) = data_of(out / "report" / "data" / "table.js")
    named = document["provenance"]["tiny+facts/gsm_cot"]
    items = inputs["score:tiny+facts/gsm_cot"] / "items.jsonl"
    assert named["items.jsonl"] == hashlib.sha256(items.read_bytes()).hexdigest()
    assert set(named) == {"items.jsonl", "completions.jsonl"}


def test_scores_without_completions_are_shown_as_they_are(inputs, tmp_path):
    without = inputs | {"completions:tiny/gsm_cot": None}
    tabulate(without, tmp_path / "out")
    name, items = data_of(tmp_path / "out" / "report" / "data" / "tiny-gsm_cot.js")
    assert name == "tiny/gsm_cot"
    assert len(items) == 50
    assert "prompt" not in items[0]
    assert set(items[0]["scores"]) == {"paper", "strict"}


def test_a_table_of_which_nothing_could_be_made_still_says_so(tmp_path):
    nothing = {f"score:{row.name}/{column.metric}": None for row in ROWS for column in COLUMNS}
    metrics = tabulate(nothing, tmp_path / "out")
    assert metrics["missing"] == 15  # AlpacaEval is not asked of the untuned model
    assert "missing" in (tmp_path / "out" / "table.md").read_text()
    assert read_table(tmp_path / "out" / "table.json").rows[1].cells[0].status == "missing"


def test_two_bases_and_many_columns_fit_the_figure(inputs, tmp_path):
    again = tuple(replace(row, name=f"other-{row.name}", base_model="other") for row in ROWS)
    columns = COLUMNS[:3] + tuple(replace(COLUMNS[0], metric=f"m{index}", title=f"M {index}") for index in range(5))
    known = {name.removeprefix("score:"): folder for name, folder in inputs.items() if name.startswith("score:")}
    cells = {
        f"score:{row.name}/{column.metric}": known.get(f"{row.name.removeprefix('other-')}/{column.metric}")
        for row in ROWS + again for column in columns
    }  # fmt: skip
    tabulate(cells, tmp_path / "out", replace(PARAMS, rows=ROWS + again, columns=columns))
    assert (tmp_path / "out" / "figure.png").stat().st_size < 600_000


@pytest.mark.parametrize(
    ("file", "mend", "wanted"),
    [
        ("items.jsonl", lambda text: text[: len(text) // 2], "items.jsonl:"),
        ("items.jsonl", lambda text: text[: text.rindex("\n", 0, -1) + 1], "items.jsonl"),
        ("items.jsonl", lambda text: text.replace('"strict"', '"other"'), "items.jsonl"),
        ("metrics.json", lambda text: text.replace('"value"', '"valeu"'), "metrics.json"),
        ("metrics.json", lambda text: text.replace('"headline": "paper"', '"headline": "x"'), "metrics.json"),
        ("items.jsonl", None, "items.jsonl"),
    ],
    ids=["cut off", "short of a line", "another scorer", "another field", "no headline", "gone"],
)
def test_a_broken_score_is_named_with_its_place(tmp_path, file, mend, wanted):
    inputs = write_results(tmp_path / "results", items=10)
    path = inputs["score:tiny/gsm_cot"] / file
    if mend is None:
        path.unlink()
    else:
        path.write_text(mend(path.read_text()))
    with pytest.raises(BadInput) as caught:
        tabulate(inputs, tmp_path / "out")
    assert wanted in caught.value.where
    assert "tiny/gsm_cot" in caught.value.where
    assert caught.value.fix


def test_the_stage_runs_although_inputs_failed():
    assert TABULATE.tolerates_missing
    assert TABULATE.params is TabulateParams


def test_reading_the_stage_costs_no_heavy_import():
    heavy = ("numpy", "scipy", "matplotlib", "pydantic", "rich", "pyarrow")
    code = f"import tasks.tabulate, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=12))
def test_front_coding_gives_every_prompt_back(tmp_path_factory, prompts):
    folder = tmp_path_factory.mktemp("report")
    out = table_of_nothing()
    items = [ItemScore(item_id=str(at), group="", scores={"paper": 1.0}, extracted={}) for at in range(len(prompts))]
    completions = {str(at): Completion(item_id=str(at), prompt=prompt) for at, prompt in enumerate(prompts)}
    write_report(out, [CellItems(row="r", metric="m", items=items, completions=completions)], folder)
    _, stored = data_of(folder / "data" / "r-m.js")
    before = b""
    for item, prompt in zip(stored, prompts, strict=True):
        shared, rest = item["prompt"]
        before = before[: 2 * shared] + rest.encode("utf-16-le")  # JavaScript counts UTF-16 units
        assert before.decode("utf-16-le") == prompt


def test_cells_whose_names_differ_only_in_case_or_signs_have_files_of_their_own(tmp_path):
    names = ["A+b", "a+b", "a b", "a/b", "…"]
    item = ItemScore(item_id="0", group="", scores={"paper": 1.0}, extracted={})
    cells = [CellItems(row=name, metric="m", items=[item], completions={}) for name in names]
    write_report(table_of_nothing(), cells, tmp_path)
    (document,) = data_of(tmp_path / "data" / "table.js")
    files = document["cells"].values()
    assert len({file.lower() for file in files}) == len(names)
    for name in names:
        assert data_of(tmp_path / "data" / f"{document['cells'][f'{name}/m']}.js")[0] == f"{name}/m"


def table_of_nothing():
    from tulu_pipeline.reporting.build import build_table

    return build_table(title="t", rows=ROWS[:1], columns=COLUMNS[:1], measured={("tiny", "mmlu_0shot"): None})
