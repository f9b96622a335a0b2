"""What a Prefect server knows of a flow run, asked over its REST interface."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def ask(method: str, url: str, body: object = None) -> Any:
    """The answer's JSON. A busy SQLite makes the server say 503, come again: so does Prefect's own client."""
    deadline = time.monotonic() + 60
    while True:
        answer = httpx.request(method, url, json=body, timeout=30)
        if answer.status_code != 503 or time.monotonic() > deadline:
            answer.raise_for_status()
            return answer.json() if answer.content else None
        time.sleep(0.5)


@dataclass(frozen=True, slots=True)
class FlowRunView:
    """One flow run on the server at `url`."""

    url: str
    id: str

    def run(self) -> dict[str, Any]:
        """The flow run itself."""
        return dict(ask("GET", f"{self.url}/flow_runs/{self.id}"))

    def ended(self, seconds: float) -> dict[str, Any]:
        """The flow run once it has ended."""
        deadline = time.monotonic() + seconds
        while (run := self.run())["state_type"] not in FINAL:
            assert time.monotonic() < deadline, f"still {run['state_name']} after {seconds:.0f} s"
            time.sleep(0.25)
        return run

    def task_runs(self, wanted: int) -> dict[str, dict[str, Any]]:
        """Task runs by name, once the server has heard the end of `wanted` of them: it learns by events, later."""
        deadline = time.monotonic() + 20
        while True:
            runs = self._filter("task_runs")
            if sum(run["state_type"] in FINAL for run in runs) >= wanted:
                assert len({run["name"] for run in runs}) == len(runs)
                return {run["name"]: run for run in runs}
            assert time.monotonic() < deadline, f"{wanted} task runs wanted, seen: {runs}"
            time.sleep(0.1)

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """UI artifacts by key."""
        return {found["key"]: found for found in self._filter("artifacts")}

    def log(self, **only: str) -> list[str]:
        """Log messages of the run; `task_run_id` restricts them to one task run."""
        wanted = {"flow_run_id": {"any_": [self.id]}} | {name: {"any_": [value]} for name, value in only.items()}
        found = ask("POST", f"{self.url}/logs/filter", {"logs": wanted, "sort": "TIMESTAMP_ASC"})
        return [line["message"] for line in found]

    def says(self, beginning: str, seconds: float = 20, **only: str) -> bool:
        """Whether a log message begins so; log lines come in batches, after the state they belong to."""
        deadline = time.monotonic() + seconds
        while not any(line.startswith(beginning) for line in self.log(**only)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.25)
        return True

    def _filter(self, what: str) -> list[dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": [self.id]}}}
        return list(ask("POST", f"{self.url}/{what}/filter", body))


def message(task_run: dict[str, Any]) -> str:
    """What the state of a task run says."""
    return str(task_run["state"]["message"])


def latest(url: str, flow_name: str) -> FlowRunView:
    """The newest run of a flow."""
    body = {"flows": {"name": {"any_": [flow_name]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    return FlowRunView(url, ask("POST", f"{url}/flow_runs/filter", body)[0]["id"])
