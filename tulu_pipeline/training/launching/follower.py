"""What the parent knows of a training that runs, from the events of its ranks: progress, notes, how it ended."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.training.launching.exits import how_it_ended
from tulu_pipeline.training.tracking.record import HeldOutRecord, StepRecord
from tulu_pipeline.training.tracking.summary import step_note
from tulu_pipeline.training.tracking.trackers import Ending

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Follower:
    """Turns the ranks' events into progress.

    Attributes:
        name, ctx: of the artifact that is made.
        ready_seconds: until the ranks were ready for their first step.
        seconds_loading_model, seconds_resuming: of these, for the model, and for all that a resumed training needs
            beyond it: its state converted and loaded, its record taken up. No step that lies behind it is gone
            through again.
        reached: the step it is at, and the last one.
        where, fix: of the failure, where it says so itself.
    """

    name: str
    ctx: RunContext
    started: float = field(default_factory=time.monotonic)
    ready_seconds: float = 0.0
    running: bool = False
    exporting: bool = False
    done: bool = False
    device: str = ""
    kernels: dict[str, str] = field(default_factory=dict)
    held_out: HeldOutRecord | None = None
    interrupted: str = ""
    failure: str = ""
    gone: int | None = None
    saves_failed: set[int] = field(default_factory=set)
    seconds_loading_model: float = 0.0
    seconds_resuming: float = 0.0
    reached: tuple[int, int] = (0, 0)
    where: str = ""
    fix: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ending(self) -> Ending:
        """How the training ended, once it has."""
        if self.done:
            return "finished"
        return "failed" if self.failure else "interrupted"

    def note(self, text: str) -> None:
        """Tell it, and keep it for the metrics."""
        log.info("%s: %s", self.name, text)
        self.notes.append(text)

    def on_event(self, event: dict[str, Any]) -> None:
        """What a rank, or what started it, says."""
        kind = event.pop("event")
        if kind == "ready":
            self.ready_seconds = time.monotonic() - self.started
            self.seconds_loading_model = event["seconds_loading_model"]
            self.seconds_resuming = event["seconds_resuming"]
            self.running = True
            self.reached = event["step"], event["total"]
            self.device = event["device"]
            self.kernels = event["kernels"]
            self.ctx.progress(self.name, event["step"], event["total"], "steps", "training")
        elif kind == "step":
            total = event.pop("total")
            self._on_step(StepRecord(**event), total)
        elif kind == "held_out":
            self.held_out = HeldOutRecord(**event)
        elif kind == "exporting":
            self.exporting = True
            self.ctx.progress(self.name, *self.reached, "steps", "exporting")
        elif kind == "waiting":
            self.ctx.progress(self.name, 0, None, "steps", event["text"])
            log.info("%s: %s", self.name, event["text"])
        elif kind == "note":
            self.note(event["text"])
        elif kind == "save_failed":
            self.saves_failed.add(event["step"])
            self.note(f"step {event['step']} is not saved, going on: rank {event['rank']}: {event['error']}")
        elif kind == "interrupted":
            self.interrupted = f"interrupted after step {event['step']}" + ("" if event["saved"] else ", NOT saved")
            log.warning("%s: %s; the same command goes on", self.name, self.interrupted)
        elif kind == "gone" and self.gone is None:
            self.gone = event["rank"]
        elif kind == "failed" and not self.failure:
            self.failure = _failure(event)
            self.where, self.fix = event.get("where", ""), event.get("fix", "")
        elif kind == "done":
            self.done = True

    def error_after(self, ended: StageFailed) -> StageFailed | None:
        """The error of ranks that `ended`: what one said, or how the one that said nothing ended, if known."""
        what = self.failure
        if not what and self.gone is not None:
            what = how_it_ended(self.gone, getattr(ended.__cause__, "returncode", None))
        if not what:
            return None
        the_log = f"see the whole log: {ended.where}" if self.where else "see the whole log there"
        return StageFailed(what, self.where or ended.where, self.fix or the_log)

    def ask_to_stop(self, stop_file: Path) -> float:
        """Ask the ranks to save and end; the seconds they may take, 0 where there is nothing to save yet."""
        if not self.running:
            return 0.0
        if self.exporting:  # nobody looks at the file any more
            log.warning("%s: waiting for its export", self.name)
            return self.ctx.profile.stop_seconds
        stop_file.touch()
        log.warning("%s: saving, then ending", self.name)
        return self.ctx.profile.stop_seconds

    def metrics(self) -> dict[str, Any]:
        """What is known of the run itself."""
        return {
            "seconds_starting": self.ready_seconds,
            "seconds_loading_model": self.seconds_loading_model,
            "seconds_resuming": self.seconds_resuming,
            "saves_failed": len(self.saves_failed),
            "notes": self.notes,
            "device": self.device,
            "kernels": self.kernels,
        }

    def _on_step(self, record: StepRecord, total: int) -> None:
        self.reached = record.step, total
        self.ctx.progress(self.name, record.step, total, "steps", step_note(record, self.held_out))


def _failure(event: dict[str, Any]) -> str:
    """Of a rank, of a rank on a node, or of a node; which node is then part of the error."""
    if event["rank"] is None:
        return str(event["error"])
    node = f" on {event['node']}" if "node" in event else ""
    return f"rank {event['rank']}{node} failed: {event['error']}"
