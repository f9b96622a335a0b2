"""The flow as a whole, on a real server: what it makes, what it shows, how it fails, what it leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from fakes.processes import start, tulu
from fakes.waiting import wait_for
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_view import latest
from toy_experiment import write_experiment

from flows.parts import data
from flows.private_server import private_server
from flows.reproduce import run_with_prefect
from flows.session import Request
from tasks.prefect_ui import send_what_waits
from tulu_pipeline.artifacts.run import RunResult
from tulu_pipeline.errors import BadInput, MissingOnMachine, NotFound, StageFailed

DATA_HALF = {"download[worms]", "download[birds]", "normalize[worms]", "normalize[birds]"}


def request(folder: Path, **changes: object) -> Request:
    values = {"experiment": write_experiment(folder), "store": str(folder / "store"), "until": "normalize"}
    return Request(**values | changes)  # type: ignore[arg-type]


def test_a_run_makes_what_is_stale_and_the_next_one_has_no_task_runs(prefect_server: str, tmp_path: Path) -> None:
    asked = request(tmp_path)
    result = run_with_prefect(asked)
    assert set(result.executed) == DATA_HALF
    first = latest(prefect_server, "reproduce")
    assert first.run()["state_type"] == "COMPLETED"
    assert first.run()["name"] == f"reproduce-{asked.experiment}"
    assert set(first.task_runs(4)) == DATA_HALF
    again = run_with_prefect(asked)
    assert (again.executed, again.hit, again.failed) == ([], 4, [])
    second = latest(prefect_server, "reproduce")
    assert second.id != first.id
    assert second.run()["state_type"] == "COMPLETED"
    assert second.task_runs(0) == {}
    (cached,) = second.artifacts().values()
    assert (cached["key"], cached["type"]) == ("toy-cached", "table")
    assert cached["description"] == "4 of 4 artifacts were there before"
    assert {row["artifact"] for row in json.loads(cached["data"])} == DATA_HALF


def test_a_failure_fails_the_flow_run_by_its_root_cause_and_the_caller_still_gets_the_result(
    prefect_server: str, tmp_path: Path
) -> None:
    asked = request(tmp_path)
    (tmp_path / "broken").touch()
    result = run_with_prefect(asked)
    assert set(result.executed) == DATA_HALF - {"normalize[birds]"}
    assert [(failure.name, type(failure.error)) for failure in result.failed] == [("normalize[birds]", BadInput)]
    run = latest(prefect_server, "reproduce").run()
    assert run["state_type"] == "FAILED"
    assert "normalize[birds]: no rows today" in run["state"]["message"]
    (tmp_path / "broken").unlink()
    assert run_with_prefect(asked).executed == ["normalize[birds]"]


def test_what_cannot_be_planned_is_raised_as_it_is(prefect_server: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="first_lite") as caught:
        run_with_prefect(Request(experiment="first_lite", store=str(tmp_path)))
    assert "first_light" in caught.value.fix
    assert latest(prefect_server, "reproduce").run()["state_type"] == "FAILED"


def test_a_deployed_run_refuses_a_relative_store(
    prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", uuid.uuid4().hex)
    with pytest.raises(BadInput, match="relative path"):
        run_with_prefect(request(tmp_path, store="store"))
    assert not (tmp_path / "store").exists()


def test_a_configured_server_that_does_not_answer_is_an_error_with_a_fix(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(MissingOnMachine) as caught:
        run_with_prefect(request(tmp_path))
    assert "does not answer" in caught.value.what
    assert "--runner local" in caught.value.fix


def test_a_part_is_a_flow_over_the_same_store(prefect_server: str, tmp_path: Path) -> None:
    asked = request(tmp_path)
    made = data(asked.experiment, store=asked.store)
    send_what_waits()
    tokens = {name for name in made["executed"] if name.startswith("tokenize[")}
    assert len(tokens) == 2
    parent = latest(prefect_server, "data").run()
    assert (parent["name"], parent["state_type"]) == (f"data-{asked.experiment}", "COMPLETED")
    assert run_with_prefect(asked) == RunResult(hit=4, seconds=pytest.approx(0, abs=60))


def test_a_server_that_cannot_start_is_an_error_that_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path}/no/folder/a.db")
    with pytest.raises(StageFailed, match="unable to open database file"), private_server():
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_a_run_that_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    """Neither the run's own server nor the children of its stages; and the next run goes on."""
    asked = request(tmp_path)
    (tmp_path / "endless").touch()
    mark = uuid.uuid4().hex
    run = start(
        *("run", asked.experiment, "--until", "normalize", "--store", str(asked.store)),
        cwd=tmp_path,
        PREFECT_API_URL="",
        PREFECT_HOME=str(tmp_path / "prefect"),
        MARK=mark,
        PYTHONFAULTHANDLER="1",
    )
    log = tmp_path / "run.log"
    try:
        wait_for(lambda: (tmp_path / "started").exists(), 120, log.read_text)
        wait_for(lambda: len(marked(mark)) >= 5, 10, log.read_text)  # the run, two supervisors, the server, the child
        run.send_signal(number)
        assert ended(run, log) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        wait_for(lambda: not marked(mark), 5, log.read_text)
    finally:
        run.kill()
    (tmp_path / "endless").unlink()
    assert tulu("run", asked.experiment, "--until", "normalize", "--runner", "local", cwd=tmp_path).returncode == 0


def ended(run: subprocess.Popen[str], log: Path) -> int:
    """The exit code; where a run does not end, what each of its threads is at is part of the error."""
    try:
        return run.wait(60)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGABRT)
        run.wait(10)
        raise AssertionError(log.read_text()) from None


def marked(mark: str) -> list[int]:
    """Living processes whose environment holds `mark`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"MARK={mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
