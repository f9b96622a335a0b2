"""Trackers: what is asked for, what a service that fails costs, and that a run is never told the same twice."""

import importlib.util
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.waiting import wait_for

from tulu_pipeline.errors import MissingOnMachine
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import Settings, read_settings
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.tracking import tracker_worker
from tulu_pipeline.training.tracking.record import HeldOutRecord, Recorder, StepRecord
from tulu_pipeline.training.tracking.trackers import (
    TrackerJob,
    Trackers,
    ending_of,
    flat,
    read_sent,
    services,
    without_credentials,
)


def settings(**asked: str) -> Settings:
    nothing: dict[str, str | None] = {"wandb_project": None, "mlflow_tracking_uri": None}
    return replace(read_settings(), **nothing | asked)  # type: ignore[arg-type]


def start(work: Path, asked: Settings) -> Trackers:
    return Trackers(
        name="finetune[tiny+a]", key="k" * 64, recipe=Recipe(), profile=Profile(), work=work, settings=asked
    )


def record(work: Path, done: int, last: int) -> None:
    recorder = Recorder(work, done, looks=True)
    for number in range(done + 1, last + 1):
        recorder.add(
            StepRecord(
                step=number,
                loss=1.0 / number,
                learning_rate=1e-4,
                grad_norm=1.0,
                conversations=2,
                tokens=20,
                supervised_tokens=10,
                computed_tokens=20,
                seconds=0.1,
            )
        )
        if number % 10 == 0:
            recorder.add(HeldOutRecord(step=number, loss=2.0, conversations=2, supervised_tokens=10, seconds=0.1))
    recorder.close()


def test_nothing_is_asked_for_unless_the_environment_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert services(read_settings()) == []
    monkeypatch.setenv("WANDB_PROJECT", "tulu")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert services(read_settings()) == ["wandb", "mlflow"]
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert services(read_settings()) == ["mlflow"]
    trackers = start(tmp_path, settings())
    assert list(trackers.end("finished")) == []
    assert trackers.addresses() == []


@pytest.mark.parametrize(("asked", "package"), [("wandb_project", "wandb"), ("mlflow_tracking_uri", "mlflow")])
def test_a_client_that_is_not_installed_is_an_error_where_it_is_asked_for(
    asked: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    assert services(settings()) == []
    with pytest.raises(MissingOnMachine, match="is not installed") as caught:
        services(settings(**{asked: "there"}))
    assert "tulu-pipeline[track]" in caught.value.fix
    assert asked.upper() in caught.value.what


def test_a_service_that_is_down_costs_a_note_and_little_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    trackers = start(tmp_path, replace(read_settings(), wandb_project=None))
    record(tmp_path, 0, 5)
    wait_for(lambda: read_sent(tmp_path, "mlflow").problem, 100)
    started = time.monotonic()
    (note,) = trackers.end("finished")
    assert time.monotonic() - started < 10
    assert note.startswith("MLflow did not take the whole record (")
    assert "127.0.0.1" in note
    told = "".join(path.read_text() for path in tmp_path.glob("tracking-*") if path.is_file())
    assert "secret" not in note + told
    assert trackers.addresses() == []


def test_a_service_that_comes_back_gets_what_it_missed_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    place = tmp_path / "mlflow"
    place.write_text("a file stands where the folder of the service should be")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.as_uri())
    asked = replace(read_settings(), wandb_project=None)
    trackers = start(work, asked)
    record(work, 0, 33)
    wait_for(lambda: read_sent(work, "mlflow").problem, 100)
    place.unlink()
    wait_for(lambda: read_sent(work, "mlflow").steps == 33, 100)
    assert list(trackers.end("interrupted")) == []
    # Killed after step 33, gone on with after step 20.
    trackers = start(work, asked)
    record(work, 20, 40)
    assert list(trackers.end("finished")) == []
    client = MlflowClient(tracking_uri=place.as_uri())
    experiment = client.get_experiment_by_name("tulu_pipeline")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, 41))
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "held_out/loss")] == [10, 20, 30, 40]
    assert run.info.status == "FINISHED"


def test_addresses_are_shown_without_credentials() -> None:
    assert without_credentials("get http://me:pw@host:5000/api failed") == "get http://host:5000/api failed"
    assert without_credentials("https://host/a@b") == "https://host/a@b"


def test_settings_of_a_run_are_flat_names() -> None:
    assert flat({"recipe": {"learning_rate": 2e-5, "lora": None}, "key": "k"}) == {
        "recipe.learning_rate": 2e-5,
        "recipe.lora": None,
        "key": "k",
    }


def test_an_ending_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """On a full disk it is not; what is there for a moment without its text would be read as one."""
    trackers = start(tmp_path, settings())
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, room[1]))
    try:
        notes = list(trackers.end("failed"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    assert notes == []
    assert ending_of(tmp_path) is None
    list(trackers.end("failed"))
    assert ending_of(tmp_path) == "failed"


def test_what_a_service_raises_is_logged_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(_: TrackerJob) -> None:
        raise ConnectionError("http://me:secret@host:5000/api is not there")

    monkeypatch.setitem(tracker_worker._RUNS, "mlflow", refuse)
    (tmp_path / "tracking-end").write_text("failed")
    tracker_worker.follow(TrackerJob(service="mlflow", name="a", key="k", group="a", config={}, work=tmp_path))
    printed = capsys.readouterr().err
    assert "ConnectionError: http://host:5000/api is not there" in printed
    assert "secret" not in printed
