"""How a finetuning ends for its run: with what went wrong first, and with words that are true at that moment."""

import json
import logging
import select
from pathlib import Path

import pytest

from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import BadInput, StageFailed
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.training.launching.failures import failure_event
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


@pytest.mark.parametrize(
    ("error", "where", "fix"),
    [
        (BadInput("it is no number", "step 3", "lower the rate"), "step 3", "lower the rate"),
        (BadInput("it is no number", "step 3"), "step 3", "see the whole log: train.log"),
        (ValueError("it is no number"), "train.log", "see the whole log there"),
    ],
    ids=["all", "no fix", "not ours"],
)
def test_the_error_of_a_rank_keeps_its_own_place_and_its_own_fix(
    follower: Follower, error: Exception, where: str, fix: str
) -> None:
    follower.on_event(failure_event(1, error))
    told = follower.error_after(StageFailed("`python …` ended with code 1", "train.log", "see the whole log there"))
    assert told is not None
    assert told.what.removeprefix("rank 1 failed: ").removeprefix("ValueError: ") == "it is no number"
    assert (told.where, told.fix) == (where, fix)


@pytest.mark.parametrize("character", ["a", "é", "🐪", '"', "\n", "\x01"])
def test_the_error_of_a_rank_arrives_in_one_piece_however_long_it_is(character: str) -> None:
    long = character * 100_000
    for error in (ValueError(long), StageFailed(long, long, long), StageFailed("short", long, "short")):
        event = failure_event(100_000, error)
        line = f"\n{EVENT_PREFIX}{json.dumps(event)}\n".encode()
        assert len(line) <= select.PIPE_BUF, "beyond that the lines of two ranks can mix"
        assert len(line) > 700, "it is cut short"
        assert event["error"].startswith(("ValueError: " + character, character, "short"))


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
