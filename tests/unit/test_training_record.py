"""The record of a training: what a resumed one keeps, what old lines still say, what is read while it grows."""

import json
import math
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.training.tracking.record import (
    SCHEMA_VERSION,
    HeldOutRecord,
    Record,
    Recorder,
    StepRecord,
    Tail,
    read_held_out,
    read_steps,
)
from tulu_pipeline.training.tracking.summary import course_markdown, record_metrics, step_note


def step(number: int, **values: object) -> StepRecord:
    known = {
        "step": number, "loss": 2.0 / number, "learning_rate": 1e-4, "grad_norm": 0.5, "conversations": 4, "tokens": 90,
        "supervised_tokens": 30, "computed_tokens": 100, "seconds": 0.5, "data_seconds": 0.01,
    }  # fmt: skip
    return StepRecord(**known | values)  # type: ignore[arg-type]


def look(number: int) -> HeldOutRecord:
    return HeldOutRecord(step=number, loss=3.0, conversations=8, supervised_tokens=80, seconds=0.2)


class Heard:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.flushed = self.closed = False

    def add(self, record: Record) -> None:
        self.records.append(record)

    def flush(self) -> None:
        self.flushed = True

    def close(self) -> None:
        self.closed = True


def record_to(folder: Path, done_steps: int, *records: Record) -> Recorder:
    recorder = Recorder(folder, done_steps, looks=True)
    for record in records:
        recorder.add(record)
    return recorder


def test_lines_written_before_the_new_fields_are_read(tmp_path: Path) -> None:
    old = {
        "step": 7, "loss": 1.25, "learning_rate": 2e-5, "grad_norm": None, "conversations": 128, "tokens": 5000,
        "supervised_tokens": 2000, "computed_tokens": 5000, "seconds": 2.0,
    }  # fmt: skip
    (tmp_path / "steps.jsonl").write_text(json.dumps(old) + "\n")
    (record,) = read_steps(tmp_path / "steps.jsonl")
    assert (record.step, record.loss, record.data_seconds, record.mfu) == (7, 1.25, None, None)
    assert "speed/data_wait_share" not in record.scalars()
    assert record_metrics([record], [])["tokens_per_second"] == 2500
    assert "data_wait_share" not in record_metrics([record], [])


def test_every_line_says_of_which_schema_it_is(tmp_path: Path) -> None:
    record_to(tmp_path, 0, step(1), look(1)).close()
    for name, kind in (("steps.jsonl", StepRecord), ("held_out.jsonl", HeldOutRecord)):
        line = json.loads((tmp_path / name).read_text())
        assert line.pop("schema_version") == SCHEMA_VERSION
        assert set(line) == {field.name for field in fields(kind)}


def test_a_line_of_a_newer_release_is_refused_and_of_an_unknown_field_is_not(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "later": 1, **asdict(step(1))}) + "\n")
    assert list(read_steps(path)) == [step(1)]
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, **asdict(step(1))}) + "\n")
    with pytest.raises(BadInput, match=f"this version reads {SCHEMA_VERSION}"):
        list(read_steps(path))


def test_a_resumed_training_keeps_what_lies_behind_its_start(tmp_path: Path) -> None:
    record_to(tmp_path, 0, look(0), step(1), step(2), look(2), step(3))
    with open(tmp_path / "steps.jsonl", "a") as lines:
        lines.write('{"step": 4, "lo')  # cut off by a kill
    resumed = record_to(tmp_path, 2)
    assert resumed.tokens == 180
    resumed.add(step(3, loss=9.0))
    resumed.close()
    assert [record.loss for record in read_steps(tmp_path / "steps.jsonl")] == [2.0, 1.0, 9.0]
    assert [record.step for record in read_held_out(tmp_path / "held_out.jsonl")] == [0, 2]


def test_a_training_that_starts_over_keeps_nothing(tmp_path: Path) -> None:
    record_to(tmp_path, 0, look(0), step(1)).close()
    record_to(tmp_path, 0).close()
    assert not list(read_steps(tmp_path / "steps.jsonl"))
    assert not list(read_held_out(tmp_path / "held_out.jsonl"))


def test_listeners_hear_each_record_and_are_brought_to_disk_with_it(tmp_path: Path) -> None:
    heard = Heard()
    recorder = Recorder(tmp_path, 0, [heard])
    recorder.add(step(1))
    recorder.flush()
    assert (heard.records, heard.flushed, heard.closed) == ([step(1)], True, False)
    recorder.close()
    assert heard.closed


@contextmanager
def room_for(size_bytes: int) -> Iterator[None]:
    """While the block runs no file grows beyond this, and who tries is told so, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_what_a_full_disk_does_not_take_waits_and_is_told_once(tmp_path: Path) -> None:
    told: list[str] = []
    recorder = Recorder(tmp_path, 0, note=told.append)
    recorder.add(step(1))
    size = (tmp_path / "steps.jsonl").stat().st_size
    with room_for(size + 20):
        for number in (2, 3):
            recorder.add(step(number))
        with pytest.raises(OSError, match="too large"):
            recorder.flush()
        assert [record.step for record in read_steps(tmp_path / "steps.jsonl")] == [1]
    assert told == [f"the record waits for room: File too large ({tmp_path / 'steps.jsonl'})"]
    recorder.add(step(4))
    recorder.close()
    assert [record.step for record in read_steps(tmp_path / "steps.jsonl")] == [1, 2, 3, 4]
    assert recorder.tokens == 360


def test_a_record_that_cannot_be_finished_ends_no_training(tmp_path: Path) -> None:
    told: list[str] = []
    recorder = Recorder(tmp_path, 0, note=told.append)
    with room_for(0):
        recorder.add(step(1))
        recorder.close()
    assert told[1:] == ["the end of the record is lost: File too large"]


def test_a_listener_that_cannot_write_hears_no_more(tmp_path: Path) -> None:
    class Broken(Heard):
        def add(self, record: Record) -> None:
            raise OSError(28, "No space left on device")

    broken, heard, told = Broken(), Heard(), list[str]()
    recorder = Recorder(tmp_path, 0, [broken, heard], note=told.append)
    for number in (1, 2):
        recorder.add(step(number))
    recorder.close()
    assert told == ["`Broken` gets no more of the record: No space left on device"]
    assert (len(heard.records), heard.closed, broken.closed) == (2, True, False)


def test_no_line_holds_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        record_to(tmp_path, 0, step(1, grad_norm=math.inf))


def test_a_growing_file_is_read_on_line_by_line_and_a_new_one_from_its_start(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "steps.jsonl", StepRecord)
    assert tail.read() == []
    record_to(tmp_path, 0, step(1), step(2)).close()
    assert [record.step for record in tail.read()] == [1, 2]
    with open(tmp_path / "steps.jsonl", "a") as lines:
        text = json.dumps(asdict(step(3)))
        lines.write(text[:20])
        lines.flush()
        assert tail.read() == []
        lines.write(text[20:] + "\n")
    assert [record.step for record in tail.read()] == [3]
    assert tail.read() == []
    record_to(tmp_path, 1, step(2)).close()  # resumed: the file is another one
    assert [record.step for record in tail.read()] == [1, 2]


def test_the_line_that_people_watch_says_what_is_known() -> None:
    text = step_note(step(2, seconds_left=3723.0, mfu=0.413, memory_bytes=3 * 2**30), look(2))
    for part in ("loss 1.000", "held out 3.000", "180 tok/s, 60 supervised", "MFU 41.3%", "padding 10%", "3.0 GiB"):
        assert part in text
    assert text.endswith("waiting for data 2% · 1:02:03 left")
    assert "MFU" not in step_note(step(2))
    assert "waiting" not in step_note(step(2, data_seconds=0.001))


def test_a_training_in_numbers() -> None:
    steps = [step(1, mfu=0.2, memory_bytes=5), step(2, mfu=0.5, seconds=1.0, memory_bytes=9), step(3, mfu=None)]
    metrics = record_metrics(
        steps, [look(0), HeldOutRecord(step=3, loss=1.0, conversations=8, supervised_tokens=80, seconds=0.1)]
    )
    assert metrics["tokens_per_second"] == 135
    assert metrics["data_wait_share"] == pytest.approx(0.03 / 2)
    assert metrics["mfu"] == pytest.approx((0.2 * 0.5 + 0.5 * 1.0) / 1.5), "weighted by time"
    assert metrics["memory_bytes"] == 9
    assert (metrics["held_out_loss_first"], metrics["held_out_loss_last"]) == (3.0, 1.0)
    assert metrics["held_out_perplexity"] == pytest.approx(math.e)


def test_a_few_steps_tell_how_a_training_went() -> None:
    lines = course_markdown([step(number) for number in range(1, 101)], [look(0), look(50)], rows=5).splitlines()
    assert lines[0] == "| step | loss | held-out loss | learning rate | gradient norm | tokens/s |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1", "| 26", "| 51", "| 75", "| 100"]
    assert lines[2] == "| 1 | 2.0000 | 3.0000 | 1.00e-04 | 0.500 | 180 |"
    assert course_markdown([step(1)], []).splitlines()[2:] == ["| 1 | 2.0000 | 1.00e-04 | 0.500 | 180 |"]
    assert course_markdown([], []) == ""
