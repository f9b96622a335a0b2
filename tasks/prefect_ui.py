"""What Prefect's UI shows of a run: pages of what was made, tables, progress, log lines.

A server that cannot take it costs the view of it, not the work.
"""

from __future__ import annotations

import contextvars
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException
from prefect.logging.handlers import APILogHandler, APILogWorker

from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.stage import AUX
from tulu_pipeline.errors import TuluError
from tulu_pipeline.logs import PACKAGES
from tulu_pipeline.training.tracking.record import (
    HELD_OUT_FILE,
    STEPS_FILE,
    HeldOutRecord,
    StepRecord,
    read_held_out,
    read_steps,
)
from tulu_pipeline.training.tracking.summary import course_markdown

log = logging.getLogger(__name__)

PROGRESS_EVERY_SECONDS = 5.0
_DRAIN_SECONDS = 20.0
_LEFT_ALONE_SECONDS = 300.0


def show_markdown(name: str, markdown: str, description: str) -> None:
    """Put `markdown` into the UI under `name`."""
    _ui.show(lambda: create_markdown_artifact(markdown, key=artifact_key(name), description=description))


def show_table(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Put a table into the UI under `name`."""
    table = [dict(row) for row in rows]
    _ui.show(lambda: create_table_artifact(table, key=artifact_key(name), description=description))


def artifact_key(name: str) -> str:
    """`name` in the alphabet of Prefect's artifact keys: `finetune[tiny+a/b]` becomes `finetune-tiny-a-b`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def made_markdown(name: str, manifest: Manifest, link: str, folder: Path | None = None) -> str:
    """What the UI shows of an artifact that was made; with its folder, how its training went, where it is one's."""
    rows = {
        "key": f"`{manifest.key}`",
        "digest": f"`{manifest.digest}`",
        "path": f"`{link}`",
        "seconds": f"{manifest.seconds:,.1f}",
        "bytes": f"{sum(entry.size_bytes for entry in manifest.outputs):,}",
    }
    if manifest.cost_usd != "0":
        rows["cost in USD"] = manifest.cost_usd
    rows |= {metric: _cell(value) for metric, value in manifest.metrics.items()}
    lines = [f"# {name}", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    addresses = [address for address in manifest.metrics.get("tracked_at", ()) if address.startswith("http")]
    lines += ["", *(f"- [{address}]({address})" for address in addresses)] if addresses else []
    course = "" if folder is None else course_markdown(*_record_in(folder / AUX))
    return "\n".join([*lines, "", "## How it went", "", course] if course else lines)


class ProgressArtifacts:
    """Progress of running task runs in the UI; a `ReportProgress`.

    A stage only notes how far it is; one thread tells the server now and then, so that none waits for it.
    """

    def __init__(self, every_seconds: float = PROGRESS_EVERY_SECONDS) -> None:
        self._every = every_seconds
        self._lock = threading.Lock()
        self._bars: dict[str, _Bar] = {}

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send while the block runs."""
        stop = threading.Event()

        def send_now_and_then() -> None:
            while not stop.wait(self._every):
                with self._lock:
                    for bar in self._bars.values():
                        bar.send()

        thread = threading.Thread(target=send_now_and_then, name="progress artifacts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def __call__(self, name: str, done: float, total: float | None, unit: str, note: str = "") -> None:
        """Note it; only what has a known end and happens in a task run is shown."""
        if not total:
            return
        bar = self._bars.get(name)
        if bar is None:
            if TaskRunContext.get() is None:
                return
            with self._lock:
                bar = self._bars.setdefault(name, _Bar(name, contextvars.copy_context()))
        bar.latest = (min(100.0, 100.0 * done / total), f"{name}: {done:,.0f} of {total:,.0f} {unit} {note}".rstrip())

    def end(self, names: Sequence[str]) -> None:
        """The work on `names` has ended: bring what is shown of it up to date a last time."""
        with self._lock:
            for name in names:
                bar = self._bars.pop(name, None)
                if bar is not None and bar.shown is not None:
                    bar.send()


def forward_logs() -> None:
    """From now on this project's log lines also go into the log of the task or flow run that writes them."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if not any(isinstance(handler, _RunLog) for handler in logger.handlers):
            logger.addHandler(_RunLog())


def send_what_waits(seconds: float = _DRAIN_SECONDS) -> None:
    """Send the log lines and state changes that still wait, before their server goes; so long for each at most."""
    APILogWorker.drain_all(timeout=seconds)
    EventsWorker.drain_all(timeout=seconds)


def _record_in(aux: Path) -> tuple[list[StepRecord], list[HeldOutRecord]]:
    """The record of a training that lies here; empty where none does or it cannot be read."""
    try:
        return list(read_steps(aux / STEPS_FILE)), list(read_held_out(aux / HELD_OUT_FILE))
    except (OSError, ValueError, TuluError) as error:
        log.warning("not shown in Prefect: %s", error)
        return [], []


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


@dataclass(slots=True)
class _Bar:
    """One progress artifact; made when first sent, in the context of the task run it belongs to."""

    name: str
    context: contextvars.Context
    latest: tuple[float, str] | None = None
    sent: tuple[float, str] | None = None
    shown: UUID | None = None

    def send(self) -> None:
        if self.latest is not None and self.latest != self.sent:
            self.sent = self.latest
            _ui.show(lambda: self.context.run(self._send, *self.sent))  # type: ignore[misc]  # set just above

    def _send(self, percent: float, description: str) -> None:
        if self.shown is None:
            key = f"{artifact_key(self.name)}-progress"
            self.shown = cast(UUID, create_progress_artifact(percent, key=key, description=description))
        else:
            update_progress_artifact(self.shown, percent, description=description)


class _RunLog(APILogHandler):
    """Log lines written in a task or flow run go to its log; all others pass by."""

    def filter(self, record: logging.LogRecord) -> bool:
        in_a_run = TaskRunContext.get() is not None or FlowRunContext.get() is not None
        return in_a_run and bool(super().filter(record))


class _Ui:
    """What is created for the UI. A server that cannot take it costs the view of it, not the work.

    Prefect's client tries for about a minute before it gives up; after that the server is left alone for a while.
    """

    def __init__(self) -> None:
        self._not_before = 0.0

    def show(self, create: Callable[[], object]) -> None:
        """Create something, or say why not."""
        if time.monotonic() < self._not_before:
            return
        try:
            create()
        except (httpx.HTTPError, PrefectException, RuntimeError) as error:
            self._not_before = time.monotonic() + _LEFT_ALONE_SECONDS
            log.warning("not shown in Prefect: %s: %s", type(error).__name__, error)


_ui = _Ui()
