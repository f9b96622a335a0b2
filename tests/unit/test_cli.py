"""The `tulu` command as a process: what it prints where, how it ends, what it does not load."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.processes import tulu

import flows
from flows.cli import COMMANDS


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["torch", "vllm", "deepspeed", "transformers", "datasets", "prefect", "pydantic", "pyarrow", "numpy"]
    code = f"import flows.cli, flows.session, flows.plan_view, sys; print([n for n in {heavy} if n in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(loaded.replace("'", '"')) == []


def test_every_command_is_one_file_that_is_loaded_when_it_is_called() -> None:
    files = {file.stem for file in (Path(flows.__file__).parent / "commands").glob("*.py")}
    assert files - {"__init__", "options"} == set(COMMANDS)
    code = "import flows.cli, sys; print([n for n in sys.modules if n.startswith('flows.commands')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_each_command_and_each_of_its_options_does(tmp_path: Path, command: str) -> None:
    done = tulu(command, "--help", cwd=tmp_path, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert COMMANDS[command].replace("`", "") in done.stdout
    options = [line.strip(" │*") for line in done.stdout.splitlines() if line.startswith("│")]
    assert all(re.search(r"\S {2,}\S.*\.( \[required\])?$", line) for line in options), done.stdout


def test_an_unknown_experiment_says_what_where_and_how_to_go_on(tmp_path: Path) -> None:
    done = tulu("plan", "first_lite", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no experiment named `first_lite`" in done.stderr
    assert "did you mean `first_light`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("run", "demo", "--runner", "airflow"), "no runner `airflow`"),
        (("run", "demo", "--profile", "dgx"), "no profile named `dgx`"),
        (("run", "demo", "--until", "tokenise"), "no stage or artifact named `tokenise`"),
        (("plan", "mine.py"), "no file `mine.py`"),
        (("plan", "demo", "--store", "ftp://host/store"), "not supported"),
        (("list", "planets"), "no kind named `planets`"),
        (("show", "alpacca"), "named `alpacca`"),
    ],
)
def test_bad_input_is_an_error_with_a_fix(tmp_path: Path, words: tuple[str, ...], what: str) -> None:
    done = tulu(*words, cwd=tmp_path)
    assert done.returncode in {1, 2}
    assert what in done.stderr
    assert "fix:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_users_file_with_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("EXPERIMENT = (\n")
    done = tulu("plan", "mine.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "mine.py:1" in done.stderr


@pytest.mark.parametrize("kind", ["datasets", "mixtures", "models", "benchmarks", "experiments", "stages"])
def test_lists_are_json_on_request(tmp_path: Path, kind: str) -> None:
    done = tulu("list", kind, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(entry["name"] for entry in json.loads(done.stdout))


def test_the_plan_as_json_has_the_settled_form(tmp_path: Path) -> None:
    done = tulu("plan", "demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["experiment"] == "demo"
    assert plan["counts"]["HIT"] == 0
    assert plan["counts"]["MISS"] > 0
    assert plan["counts"]["WAITS"] > 0
    for node in plan["nodes"]:
        assert set(node) == {"name", "stage", "status", "key", "drift", "reason", "inputs"}
        assert (node["key"] is None) == (node["status"] == "WAITS")
        assert node["reason"]["code"] == "NEW"
