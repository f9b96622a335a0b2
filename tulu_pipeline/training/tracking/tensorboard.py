"""The record of a training as TensorBoard's curves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tulu_pipeline.training.tracking.record import TENSORBOARD_FOLDER, Record


class TensorBoard:
    """Writes event files; a listener of the record.

    Args:
        folder: of the record; they go into its `tensorboard/`.
        done_steps: steps that the resumed training has behind it; 0 for a new one.
    """

    def __init__(self, folder: Path, done_steps: int) -> None:
        self._events = EventFileWriter(str(folder / TENSORBOARD_FOLDER))
        if done_steps:
            # TensorBoard then forgets what an interrupted run wrote beyond the state it is resumed from.
            start = SessionLog(status=SessionLog.START)
            self._events.add_event(Event(wall_time=time.time(), step=done_steps + 1, session_log=start))

    def add(self, record: Record) -> None:
        """Write its curves' next points."""
        self._events.add_event(Event(wall_time=time.time(), step=record.step, summary=_summary(record.scalars())))

    def flush(self) -> None:
        """Bring everything to disk."""
        self._events.flush()

    def close(self) -> None:
        """Flush and close."""
        self._events.close()


def _summary(scalars: Mapping[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()])
