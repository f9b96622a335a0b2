"""The record of a training, step by step: a line of JSON each, and TensorBoard's curves."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

STEPS_FILE = "steps.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimizer step, over all ranks.

    Attributes:
        step: counted from 1.
        loss: as `loss_norm` defines it.
        learning_rate: of this step.
        grad_norm: before clipping; None where DeepSpeed does not tell (ZeRO stage 0).
        conversations, tokens, supervised_tokens: that the step trained on.
        computed_tokens: tokens with padding.
        seconds: wall time of the step.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float | None
    conversations: int
    tokens: int
    supervised_tokens: int
    computed_tokens: int
    seconds: float

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that are padding."""
        return 1.0 - self.tokens / self.computed_tokens


class Recorder:
    """Appends to the record; what is older than a resumed training's start is kept, the rest is dropped.

    Args:
        folder: holds `steps.jsonl` and `tensorboard/`.
        done_steps: steps that the resumed training has behind it; 0 for a new one.
    """

    def __init__(self, folder: Path, done_steps: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STEPS_FILE
        kept = [record for record in read_steps(path) if record.step <= done_steps]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(_line(record) for record in kept))
        temporary.replace(path)
        self._lines = path.open("a", buffering=1)  # a line at a time: what is recorded is there after a kill
        self._events = EventFileWriter(str(folder / TENSORBOARD_FOLDER))
        if done_steps:
            # TensorBoard then forgets what an interrupted run wrote beyond the state it is resumed from.
            start = SessionLog(status=SessionLog.START)
            self._events.add_event(Event(wall_time=time.time(), step=done_steps + 1, session_log=start))

    def add(self, record: StepRecord) -> None:
        """Append one step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._lines.write(_line(record))
        values = {
            "train/loss": record.loss,
            "train/learning_rate": record.learning_rate,
            "train/grad_norm": record.grad_norm,
            "speed/tokens_per_second": record.tokens / record.seconds,
            "speed/supervised_tokens_per_second": record.supervised_tokens / record.seconds,
            "speed/padding_share": record.padding_share,
        }
        summary = Summary(
            value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None]
        )
        self._events.add_event(Event(wall_time=time.time(), step=record.step, summary=summary))

    def flush(self) -> None:
        """Bring everything to disk; before state is saved, so that the record is never behind it."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._events.flush()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._lines.close()
        self._events.close()


def read_steps(path: Path) -> Iterator[StepRecord]:
    """The recorded steps; a last line that was cut off is left out."""
    if not path.exists():
        return
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield StepRecord(**json.loads(line))


def _line(record: StepRecord) -> str:
    return json.dumps(asdict(record)) + "\n"
