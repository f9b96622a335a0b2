"""Tells one service of a training, from its record.

Started as `python -m tulu_pipeline.training.tracking.tracker_worker job.json`.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from tulu_pipeline.artifacts.child_side import end_with_parent
from tulu_pipeline.settings import read_settings
from tulu_pipeline.training.tracking.record import (
    HELD_OUT_FILE,
    STEPS_FILE,
    HeldOutRecord,
    Record,
    StepRecord,
    Tail,
)
from tulu_pipeline.training.tracking.trackers import (
    Ending,
    Sent,
    Service,
    TrackerJob,
    ending_of,
    read_sent,
    without_credentials,
    write_sent,
)

_LOOK_EVERY_SECONDS = 1.0
_AGAIN_AFTER_SECONDS = (2.0, 5.0, 15.0, 60.0)
_RECORDS_PER_REQUEST = 50  # of a dozen metrics each; MLflow takes 1,000, and 100 parameters
_PARAMS_PER_REQUEST = 100
_MLFLOW_TAG = "tulu.key"
_MLFLOW_ENDINGS: dict[Ending, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class Run(Protocol):
    """The run of a service.

    Attributes:
        address: where people see it.
        steps, held_out: the last step of each kind that the service itself says it has; 0 and -1 for none.
    """

    address: str
    steps: int
    held_out: int

    def send(self, records: Sequence[Record]) -> None:
        """Send these, in order."""

    def finish(self, ending: Ending) -> None:
        """Say how it ended, and wait until everything is there."""


def main() -> None:
    """Follow a training to its end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    end_with_parent()
    follow(TrackerJob.model_validate_json(parser.parse_args().job.read_text()))


def follow(job: TrackerJob) -> None:
    """Send the record as it grows, until the training has ended and everything is there.

    Whatever a service does wrong is remembered as its problem, and tried again; once the training has ended, once.
    """
    failures = 0
    while True:
        try:
            return _follow(job, _RUNS[job.service](job))
        except Exception as error:  # noqa: BLE001 - whatever its client raises is the service's problem
            sys.stderr.write(without_credentials(traceback.format_exc()))  # the log is kept beside the checkpoint
            problem = without_credentials(f"{type(error).__name__}: {error}").splitlines()[0][:300]
            write_sent(job.work, job.service, read_sent(job.work, job.service).model_copy(update={"problem": problem}))
        if ending_of(job.work) is not None:
            return None
        _wait(job.work, _AGAIN_AFTER_SECONDS[min(failures, len(_AGAIN_AFTER_SECONDS) - 1)])
        failures += 1


def _follow(job: TrackerJob, run: Run) -> None:
    known = read_sent(job.work, job.service)
    sent = Sent(
        steps=max(known.steps, run.steps),
        held_out=max(known.held_out, run.held_out),
        address=without_credentials(run.address),
    )
    steps, looks = Tail(job.work / STEPS_FILE, StepRecord), Tail(job.work / HELD_OUT_FILE, HeldOutRecord)
    while True:
        ending = ending_of(job.work)  # read before the record, which is then complete
        # The steps first: a look at the held-out conversations that lies before one of them is then there too.
        new_steps = [record for record in steps.read() if record.step > sent.steps]
        new_looks = [record for record in looks.read() if record.step > sent.held_out]
        news: list[Record] = [*new_steps, *new_looks]
        run.send(sorted(news, key=lambda record: (record.step, isinstance(record, HeldOutRecord))))
        if ending is not None:
            run.finish(ending)
        sent = sent.model_copy(
            update={
                "steps": max([sent.steps, *(record.step for record in new_steps)]),
                "held_out": max([sent.held_out, *(record.step for record in new_looks)]),
                "complete": ending is not None,
            }
        )
        write_sent(job.work, job.service, sent)
        if ending is not None:
            return
        _wait(job.work, _LOOK_EVERY_SECONDS)


def _wait(work: Path, seconds: float) -> None:
    """So long, or until the training ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and ending_of(work) is None:
        time.sleep(0.1)


class _Wandb:
    """A run of Weights & Biases, whose id is the artifact's key. It drops what lies before its last step itself."""

    def __init__(self, job: TrackerJob) -> None:
        import wandb

        self._run = wandb.init(
            project=read_settings().wandb_project,
            id=job.key[:64],
            name=job.name,
            group=read_settings().wandb_group or job.group,
            resume="allow",
            dir=str(job.work),
            settings=wandb.Settings(console="off", silent=True, disable_code=True),
        )
        self._run.config.update(job.config, allow_val_change=True)  # type: ignore[no-untyped-call]  # it has no types
        self.address = self._run.url or ""
        self.steps = max(0, self._run.starting_step - 1)
        self.held_out = self._run.starting_step - 1

    def send(self, records: Sequence[Record]) -> None:
        for record in records:
            self._run.log({**record.scalars(), "_timestamp": _seconds(record)}, step=record.step)

    def finish(self, ending: Ending) -> None:
        self._run.finish(exit_code=0 if ending == "finished" else 1)


class _MLflow:
    """A run of MLflow, found by a tag that holds the artifact's key; the server makes up its ids."""

    def __init__(self, job: TrackerJob) -> None:
        from mlflow.entities import Param, RunTag
        from mlflow.tracking import MlflowClient

        settings = read_settings()
        self._client = client = MlflowClient(tracking_uri=settings.mlflow_tracking_uri)
        known = client.get_experiment_by_name(settings.mlflow_experiment)
        experiment = known.experiment_id if known else client.create_experiment(settings.mlflow_experiment)
        runs = client.search_runs([experiment], f"tags.`{_MLFLOW_TAG}` = '{job.key}'", max_results=1)
        if runs:
            self._id = runs[0].info.run_id
            client.update_run(self._id, status="RUNNING")
        else:
            tags = {_MLFLOW_TAG: job.key, "tulu.group": job.group}
            self._id = client.create_run(experiment, run_name=job.name, tags=tags).info.run_id
        # What a run was given can never change; the machine can, from one try to the next.
        lasting = [(name, value) for name, value in job.config.items() if not name.startswith("profile.")]
        for start in range(0, len(lasting), _PARAMS_PER_REQUEST):
            some = lasting[start : start + _PARAMS_PER_REQUEST]
            client.log_batch(self._id, params=[Param(name, str(value)) for name, value in some])
        passing = [RunTag(name, str(value)) for name, value in job.config.items() if name.startswith("profile.")]
        client.log_batch(self._id, tags=passing)
        self.steps = max([0, *(metric.step for metric in client.get_metric_history(self._id, "train/loss"))])
        self.held_out = max([-1, *(metric.step for metric in client.get_metric_history(self._id, "held_out/loss"))])
        place = f"#/experiments/{experiment}/runs/{self._id}"
        uri = settings.mlflow_tracking_uri or ""
        self.address = f"{uri.rstrip('/')}/{place}" if uri.startswith("http") else ""

    def send(self, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(records), _RECORDS_PER_REQUEST):
            metrics = [
                Metric(name, value, int(1000 * _seconds(record)), record.step)
                for record in records[start : start + _RECORDS_PER_REQUEST]
                for name, value in record.scalars().items()
            ]
            self._client.log_batch(self._id, metrics=metrics)

    def finish(self, ending: Ending) -> None:
        self._client.set_terminated(self._id, status=_MLFLOW_ENDINGS[ending])


def _seconds(record: Record) -> float:
    return datetime.fromisoformat(record.at).timestamp() if record.at else time.time()


_RUNS: dict[Service, Any] = {"wandb": _Wandb, "mlflow": _MLflow}


if __name__ == "__main__":
    main()
