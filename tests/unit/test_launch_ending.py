"""How a finetuning ends for its run: with what went wrong first, and with words that are true at that moment."""

import logging
from pathlib import Path

import pytest

from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.training.launching.follower import Follower
from tulu_pipeline.training.launching.launch import _collected


@pytest.fixture
def follower() -> Follower:
    return Follower(name="finetune[a+b]", ctx=RunContext(profile=Profile(stop_seconds=7.0), settings=read_settings()))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "steps.jsonl").touch()
    return tmp_path / "work"


def test_a_record_that_cannot_be_copied_hides_no_failure(follower: Follower, work: Path, tmp_path: Path) -> None:
    aux = tmp_path / "aux"
    (aux / "steps.jsonl").mkdir(parents=True)  # where the file would go
    with pytest.raises(StageFailed, match="rank 1 failed"), _collected(work, aux, follower):
        raise StageFailed("rank 1 failed", "", "")
    assert follower.notes[0].startswith("the record could not be copied beside the checkpoint: ")
    with pytest.raises(IsADirectoryError), _collected(work, aux, follower):
        pass


def test_who_is_asked_to_stop_says_what_it_does(
    follower: Follower, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stop = tmp_path / "stop"
    assert follower.ask_to_stop(stop) == 0.0
    follower.running = True
    follower.on_event({"event": "exporting"})
    assert follower.ask_to_stop(stop) == 7.0
    assert not stop.exists()
    follower.exporting = False
    assert follower.ask_to_stop(stop) == 7.0
    assert stop.exists()
    assert [record.getMessage() for record in caplog.records] == [
        "finetune[a+b]: waiting for its export",
        "finetune[a+b]: saving, then ending",
    ]
