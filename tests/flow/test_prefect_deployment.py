"""The committed deployment, for real: deployed, picked up by a worker, run twice."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import wait_for
from prefect_view import FlowRunView, ask
from toy_experiment import write_experiment

from tulu_pipeline.artifacts.children import supervised

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deployed") / "store"


def documented(beginning: str) -> list[str]:
    """The one command in the guide that begins so, with the program of this environment."""
    lines = (ROOT / "docs" / "prefect.md").read_text().splitlines()
    (command,) = (line for line in lines if line.startswith(beginning))
    program, *words = shlex.split(command)
    return [str(Path(sys.executable).with_name(program)), *words]


@pytest.fixture(scope="module")
def deployment(prefect_server: str, store: Path) -> dict[str, Any]:
    """The deployment that the guide's commands make on the server."""
    environment = os.environ | {"PREFECT_API_URL": prefect_server, "TULU_STORE": str(store)}
    for beginning in ("prefect work-pool create", "prefect deploy "):
        done = subprocess.run(
            documented(beginning),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return dict(ask("GET", f"{prefect_server}/deployments/name/reproduce/demo"))


@pytest.fixture(scope="module")
def worker(prefect_server: str, deployment: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A worker of the pool, started in a folder of its own; gives its log."""
    folder = tmp_path_factory.mktemp("worker")
    log = folder / "worker.log"
    environment = {
        "PREFECT_API_URL": prefect_server,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "TULU_HOME": str(folder),
        "TULU_STORE": "",
    }
    command = ["env", "-C", str(folder), *documented("prefect worker start")]
    with open(log, "wb") as output, supervised(command, stdout=output, stderr=output, env=environment) as process:
        yield log
        process.terminate()
        process.wait(30)


def start(prefect_server: str, deployment: dict[str, Any], **parameters: object) -> FlowRunView:
    url = f"{prefect_server}/deployments/{deployment['id']}/create_flow_run"
    run = ask("POST", url, {"parameters": parameters, "state": {"type": "SCHEDULED"}})
    return FlowRunView(prefect_server, run["id"])


def test_the_demo_is_deployed_on_a_schedule_with_an_absolute_store(deployment: dict[str, Any], store: Path) -> None:
    assert deployment["entrypoint"] == "flows.reproduce.reproduce"
    assert deployment["parameters"] == {"experiment": "demo", "store": str(store)}
    (schedule,) = deployment["schedules"]
    assert schedule["active"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 3 * * *", "UTC")
    assert deployment["work_pool_name"] == "tulu"


def test_a_worker_runs_it_and_a_second_run_has_no_task_runs(
    prefect_server: str, deployment: dict[str, Any], worker: Path, store: Path, tmp_path: Path
) -> None:
    asked = {"experiment": write_experiment(tmp_path), "until": "normalize", "store": str(store)}
    first = start(prefect_server, deployment, **asked)
    run = first.ended(120)
    assert run["state_type"] == "COMPLETED", worker.read_text()
    runs = first.task_runs(4)
    assert set(runs) == {"download[worms]", "download[birds]", "normalize[worms]", "normalize[birds]"}
    assert {each["state_type"] for each in runs.values()} == {"COMPLETED"}
    assert {"download-worms", "download-birds", "normalize-worms", "normalize-birds"} <= set(first.artifacts())
    assert first.says("done normalize[birds]", task_run_id=runs["normalize[birds]"]["id"])
    second = start(prefect_server, deployment, **asked)
    assert second.ended(120)["state_type"] == "COMPLETED", worker.read_text()
    assert second.task_runs(0) == {}
    assert len(json.loads(second.artifacts()["toy-cached"]["data"])) == 4


def test_canceling_a_run_ends_the_children_of_its_stages(
    prefect_server: str, deployment: dict[str, Any], worker: Path, tmp_path: Path
) -> None:
    asked = {"experiment": write_experiment(tmp_path), "until": "normalize", "store": str(tmp_path / "store")}
    (tmp_path / "endless").touch()
    run = start(prefect_server, deployment, **asked)
    wait_for(lambda: bool(sleeping(worker.parent)), 90, worker.read_text)
    cancel = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    ask("POST", f"{prefect_server}/flow_runs/{run.id}/set_state", cancel)
    assert run.ended(60)["state_type"] == "CANCELLED", worker.read_text()
    wait_for(lambda: not sleeping(worker.parent), 5, worker.read_text)


def sleeping(home: Path) -> list[int]:
    """The `sleep` processes, and their supervisors, of runs of the worker in `home`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = f"TULU_HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0")
            if ours and b"sleep\x00600" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
