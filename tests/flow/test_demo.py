"""The demo as a user runs it: real DeepSpeed, real vLLM, a real Prefect server; then what reruns after a change.

The tests of this file share one store and run in order.
"""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.processes import tulu, tulu_json

from tulu_pipeline.reporting.table import Table, read_table

pytestmark = [pytest.mark.needs_libnuma, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(folder: Path, prefect_server: str) -> dict[str, Any]:
    return tulu_json("run", "demo", cwd=folder, PREFECT_API_URL=prefect_server)


@pytest.fixture(scope="module")
def table(first: dict[str, Any], folder: Path) -> Table:
    place = tulu("path", "tabulate[demo]", cwd=folder).stdout.strip()
    return read_table(Path(place) / "table.json")


def score(table: Table, row: str, metric: str) -> Any:
    """The score of a cell under the headline scorer."""
    columns = [column.metric for column in table.columns]
    (found,) = (each for each in table.rows if each.spec.name == row)
    return found.cells[columns.index(metric)].views[table.headline].score


def test_each_kind_of_data_wins_its_own_benchmark(table: Table) -> None:
    arithmetic, facts = "tiny+arithmetic", "tiny+facts"
    assert score(table, arithmetic, "gsm_cot").value >= 0.5
    assert score(table, facts, "gsm_cot").value <= 0.1
    assert score(table, facts, "mmlu_0shot").value >= 0.5
    assert score(table, arithmetic, "mmlu_0shot").value <= 0.4
    assert score(table, arithmetic, "gsm_cot").low > score(table, facts, "gsm_cot").high
    assert score(table, facts, "mmlu_0shot").low > score(table, arithmetic, "mmlu_0shot").high


def test_the_untuned_model_has_no_alpaca_eval(table: Table, folder: Path) -> None:
    place = Path(tulu("path", "tabulate[demo]", cwd=folder).stdout.strip())
    untuned = [line for line in (place / "table.md").read_text().splitlines() if line.startswith("| untuned |")]
    assert untuned
    assert all(line.endswith("| – | – |") for line in untuned)  # AlpacaEval and the average


def test_the_server_knows_each_executed_cell_by_name(first: dict[str, Any], prefect_server: str) -> None:
    assert first["failed"] == []
    answer = httpx.post(f"{prefect_server}/task_runs/filter", json={"limit": 200}, timeout=30).json()
    names = {run["name"] for run in answer if run["state_type"] == "COMPLETED"}
    assert {"finetune[tiny+arithmetic]", "generate[tiny+facts]", "tabulate[demo]"} <= names


def test_a_second_run_executes_nothing(first: dict[str, Any], folder: Path) -> None:
    again = tulu_json("run", "demo", cwd=folder)
    assert again["executed"] == []
    assert again["hit"] == len(first["executed"])


def test_a_copied_store_is_all_there(first: dict[str, Any], folder: Path) -> None:
    elsewhere = folder / "moved" / "store"
    shutil.copytree(folder / "store", elsewhere, symlinks=True)
    plan = tulu_json("plan", "demo", "--store", str(elsewhere), cwd=folder)
    assert plan["counts"]["HIT"] == len(plan["nodes"])


def test_a_tampered_artifact_is_named(first: dict[str, Any], folder: Path) -> None:
    elsewhere = folder / "moved" / "store"
    (weights,) = elsewhere.glob("refs/demo/finetune*facts*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = tulu("verify", "--store", str(elsewhere), cwd=folder)
    assert done.returncode == 1
    assert "finetune[tiny+facts]: tampered: model.safetensors has changed" in done.stderr
    assert "1 are not" in done.stdout


def test_an_edited_raw_file_reruns_its_own_chain_and_nothing_else(first: dict[str, Any], folder: Path) -> None:
    raw = folder / "demo_raw" / "facts.jsonl"
    before = raw.read_text()
    row = json.loads(before.splitlines()[0])
    raw.write_text(before + json.dumps(row) + "\n")
    plan = tulu_json("plan", "demo", cwd=folder)
    stale = {node["name"] for node in plan["nodes"] if node["status"] != "HIT"}
    assert {"download[facts]", "normalize[facts]", "tokenize[tiny+facts]", "finetune[tiny+facts]"} <= stale
    assert {"score[tiny+facts/gsm_cot]", "tabulate[demo]"} <= stale
    assert not [name for name in stale if "arithmetic" in name and "facts" not in name]
    assert not [name for name in stale if name.startswith("score[tiny/")]
    why = tulu("why", "finetune[tiny+facts]", cwd=folder).stdout
    assert "SOURCE" in why
    done = tulu_json("run", "demo", "--until", "tokenize", "--runner", "local", cwd=folder)
    assert done["executed"] == ["download[facts]", "normalize[facts]", "tokenize[tiny+facts]"]
    raw.write_text(before)
    assert tulu_json("run", "demo", cwd=folder)["executed"] == []


def test_a_converter_rewritten_to_the_same_bytes_reruns_alone(first: dict[str, Any], folder: Path) -> None:
    (folder / "bumped.py").write_text(
        "from dataclasses import replace\n"
        "from tulu_pipeline.experiments.demo import EXPERIMENT as DEMO\n"
        "EXPERIMENT = replace(DEMO, datasets=tuple(\n"
        "    replace(each, converter_version=each.converter_version + (each.name == 'facts'))\n"
        "    for each in DEMO.datasets))\n"
    )
    why = tulu("why", "normalize[facts]", "--experiment", "bumped.py", cwd=folder).stdout
    assert "VERSION dataset facts 1 → 2" in why
    done = tulu_json("run", "bumped.py", "--runner", "local", cwd=folder)
    # What was left out is counted anew, and comes out the same; nothing that is trained or asked is.
    assert done["executed"] == ["normalize[facts]", "describe[facts]"]


def test_a_broken_row_is_dropped_with_its_reason_or_refused(first: dict[str, Any], folder: Path) -> None:
    raw = folder / "demo_raw" / "facts.jsonl"
    before = raw.read_text()
    lines = before.splitlines(keepends=True)
    raw.write_text("".join([*lines[:4], '{"instruction": "half a ro\n', *lines[4:]]))
    try:
        strict = tulu("run", "demo", "--until", "normalize", "--strict-rows", "--runner", "local", "--json", cwd=folder)
        assert strict.returncode == 1
        (failure,) = json.loads(strict.stdout)["failed"]
        assert "facts.jsonl:5" in failure["what"] + failure["where"]
        assert failure["fix"]
        done = tulu_json("run", "demo", "--until", "normalize", "--runner", "local", cwd=folder)
        assert done["executed"] == ["normalize[facts]"]
        place = Path(tulu("path", "normalize[facts]", cwd=folder).stdout.strip())
        (dropped,) = (json.loads(line) for line in (place / "aux" / "dropped.jsonl").read_text().splitlines())
        assert dropped["where"].endswith("facts.jsonl:5")
    finally:
        raw.write_text(before)


def readme_commands() -> list[list[str]]:
    """The `tulu …` lines of the README's list of commands, without their explanations."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("tulu ")]
    return [shlex.split(re.split(r"\s{2,}", line)[0])[1:] for line in lines]


_ORIGINALS = {"alpaca", "human_mix"}  # these name datasets whose files are not on this machine


_ASK_FOR_MORE = {"chat", "score", "publish"}  # a question, a file, a hub's token; each has tests of its own


def without(words: set[str]) -> list[list[str]]:
    return [
        each for each in readme_commands() if each[0] == "show" or not (words & set(each) or each[0] in _ASK_FOR_MORE)
    ]


@pytest.mark.parametrize("words", without(_ORIGINALS), ids=" ".join)
def test_every_command_of_the_readme_works(first: dict[str, Any], folder: Path, words: list[str]) -> None:
    if "--refresh" in words:
        words = ["plan", *words[1:]]  # a plan says what would run anew; running it is for the long tests
    done = tulu(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.realdata
@pytest.mark.parametrize("words", [each for each in readme_commands() if "alpaca" in each], ids=" ".join)
def test_the_commands_of_the_readme_about_alpaca_work_with_a_mirror(
    tmp_path: Path, mirror: Path, words: list[str]
) -> None:
    done = tulu(*words, cwd=tmp_path, TULU_MIRROR=str(mirror))
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_export_of_the_readme_names_the_source_that_is_not_there(tmp_path: Path) -> None:
    (words,) = [each for each in readme_commands() if each[0] == "export"]
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "MANIFEST.json").write_text("[]")
    done = tulu(*words, cwd=tmp_path, TULU_MIRROR=str(tmp_path / "mirror"))
    assert done.returncode == 1
    assert "download[" in done.stderr
    assert "fix:" in done.stderr
