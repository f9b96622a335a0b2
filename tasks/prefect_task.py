"""A unit of work as a Prefect task run: its name, tags, slot, retries, log and what the UI shows of it.

What Prefect must not do is as deliberate: no result, cache key or hook of Prefect's carries anything of ours, because
a failure in one of those ends COMPLETED. The stage publishes inside the task's body and the body raises.
No Prefect timeout either: in a worker thread it cannot interrupt anything that blocks.
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
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_client, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.futures import PrefectFuture
from prefect.logging.handlers import APILogHandler, APILogWorker
from prefect.tasks import Task
from prefect.utilities.annotations import quote

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.execute import Outcome
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.run import Pending, Submit
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import StageFailed, Unreachable
from tulu_pipeline.logs import PACKAGES
from tulu_pipeline.profile import Profile, Slot

log = logging.getLogger(__name__)

SHARED_SLOTS: tuple[Slot, ...] = ("gpu", "api")  # what several runs compete for; CPU cores are each machine's own
RETRY_DELAYS_SECONDS = (10.0, 60.0)
PROGRESS_EVERY_SECONDS = 5.0
_DRAIN_SECONDS = 20.0
_LEFT_ALONE_SECONDS = 300.0


def slot_tag(slot: Slot) -> str:
    """The tag whose concurrency limit bounds the stages of one slot."""
    return f"tulu-{slot}"


def prefect_submit(
    store: Store,
    experiment: str,
    progress: ProgressArtifacts,
    retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
) -> Submit:
    """Carry work out as task runs of the flow that calls it.

    Args:
        store: where the readable paths shown in the UI point.
        experiment: under whose name they are.
        progress: progress artifacts of the flow run.
        retry_delays_seconds: one retry after each, half as long again at random, for errors that time may mend.

    Returns:
        A `Submit`. The task run fails when anything of the unit failed; the loop gets the whole `Outcome` either way.
    """
    made_by: dict[str, _Submitted] = {}

    def submit(unit: str, artifacts: Sequence[Artifact], work: Callable[[], Outcome]) -> Pending:
        stage = artifacts[0].stage
        parcel = _Parcel(unit, [artifact.name for artifact in artifacts], work, store, experiment, progress)
        carrier = _carry_out.with_options(
            name=stage.name,
            task_run_name=parcel.name,
            tags={"tulu", f"stage:{stage.name}", slot_tag(stage.slot)},
            retries=len(retry_delays_seconds),
            retry_delay_seconds=list(retry_delays_seconds),
        )
        inputs = dict.fromkeys(source.name for artifact in artifacts for source in artifact.inputs.values())
        before = (made_by[name] for name in inputs if name in made_by)
        edges = dict.fromkeys(each.future for each in before if each.all_is_made())  # all done: drawn in the UI
        # Quoted: the engine is to unwrap the parcel, and to look into nothing of it.
        future = carrier.submit(quote(parcel), wait_for=list(edges), return_state=False)
        submitted = _Submitted(future, parcel)
        made_by.update(dict.fromkeys(parcel.names, submitted))
        return submitted

    return submit


def ensure_limits(profile: Profile) -> None:
    """Create the concurrency limits of the shared slots where they are absent; a limit that is there is a person's."""
    slots = profile.slots()
    with get_client(sync_client=True) as client:
        for slot in SHARED_SLOTS:
            name = f"tag:{slot_tag(slot)}"
            try:
                client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                try:
                    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots[slot]))
                except ObjectAlreadyExists:
                    continue
                log.info("created the concurrency limit %s: %d", name, slots[slot])


def forward_logs() -> None:
    """From now on this project's log lines also go into the log of the task or flow run that writes them."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if not any(isinstance(handler, _RunLog) for handler in logger.handlers):
            logger.addHandler(_RunLog())


def send_what_waits() -> None:
    """Send the log lines and state changes that still wait, before their server goes."""
    APILogWorker.drain_all(timeout=_DRAIN_SECONDS)
    EventsWorker.drain_all(timeout=_DRAIN_SECONDS)


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


@dataclass(slots=True)
class _Parcel:
    """A unit of work on its way through a task run, and what became of it. It never leaves this process."""

    unit: str
    names: Sequence[str]
    work: Callable[[], Outcome]
    store: Store
    experiment: str
    progress: ProgressArtifacts
    outcome: Outcome | None = None

    def name(self) -> str:
        """Of the task run."""
        return self.unit

    def carry_out(self) -> Outcome:
        """Do the work, once more after a retry; what an earlier try made stays made."""
        outcome = self.work()
        if self.outcome is not None:
            outcome.made = self.outcome.made | outcome.made
            outcome.found = {name: found for name, found in outcome.found.items() if name not in outcome.made}
        self.outcome = outcome
        return outcome


class _Submitted:
    """The `Pending` of a task run: done when the run is, with the outcome of the work whatever the run's state."""

    def __init__(self, future: PrefectFuture[None], parcel: _Parcel) -> None:
        self.future, self._parcel = future, parcel

    def all_is_made(self) -> bool:
        """Whether the run has ended well; Prefect lets nothing follow one that has not."""
        outcome = self._parcel.outcome
        return outcome is not None and not outcome.failed

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call `fn` with this, from the thread that ends the run."""
        self.future.add_done_callback(lambda _: fn(self))

    def result(self) -> Outcome:
        """What became of the work.

        Raises:
            StageFailed: the run ended before the work did: it crashed, or was canceled.
        """
        if self._parcel.outcome is not None:
            return self._parcel.outcome
        try:
            self.future.result()
        except BaseException as error:
            raise StageFailed(
                f"the task run ended before its work: {type(error).__name__}: {error}",
                self._parcel.unit,
                "see the run's log, then run the same command: it goes on",
            ) from error
        raise StageFailed("the task run was skipped", self._parcel.unit, "run the same command: it goes on")


def _another_try_may_help(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether time may mend what failed: the network, yes; a wrong hash, a bad row, a bug, no."""
    error = state.data
    if isinstance(error, Unreachable):
        log.warning("%s: %s; trying again", task_run.name, error.what)
        return True
    return False


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_jitter_factor=0.5,
    retry_condition_fn=_another_try_may_help,
)
def _carry_out(parcel: _Parcel) -> None:
    outcome = parcel.carry_out()
    parcel.progress.end(parcel.names)
    for name, manifest in outcome.made.items():
        link = parcel.store.ref_place(parcel.experiment, name)
        show_markdown(name, made_markdown(name, manifest, link), f"made {name}")
    errors = list(dict.fromkeys(outcome.failed.values()))
    if len(outcome.failed) > 1:
        raise StageFailed(
            f"{len(outcome.failed)} of {len(parcel.names)} failed: {', '.join(outcome.failed)}\n{errors[0].what}",
            errors[0].where,
            errors[0].fix,
        ) from errors[0]
    if errors:
        raise errors[0]


def made_markdown(name: str, manifest: Manifest, link: str) -> str:
    """What the UI shows of an artifact that was made."""
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
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


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
