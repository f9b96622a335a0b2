"""What a Prefect server knows of a flow run, asked over its REST interface."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True, slots=True)
class FlowRunView:
    """One flow run on the server at `url`."""

    url: str
    id: str

    def run(self) -> dict[str, Any]:
        """The flow run itself."""
        answer = httpx.get(f"{self.url}/flow_runs/{self.id}", timeout=30)
        answer.raise_for_status()
        return dict(answer.json())

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
        answer = httpx.post(f"{self.url}/logs/filter", json={"logs": wanted, "sort": "TIMESTAMP_ASC"}, timeout=30)
        answer.raise_for_status()
        return [line["message"] for line in answer.json()]

    def _filter(self, what: str) -> list[dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": [self.id]}}}
        answer = httpx.post(f"{self.url}/{what}/filter", json=body, timeout=30)
        answer.raise_for_status()
        return list(answer.json())


def message(task_run: dict[str, Any]) -> str:
    """What the state of a task run says."""
    return str(task_run["state"]["message"])


def latest(url: str, flow_name: str) -> FlowRunView:
    """The newest run of a flow."""
    body = {"flows": {"name": {"any_": [flow_name]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    answer = httpx.post(f"{url}/flow_runs/filter", json=body, timeout=30)
    answer.raise_for_status()
    return FlowRunView(url, answer.json()[0]["id"])
