"""The flow: plan an experiment, run what is stale, show the table.

What is there already is one table in the UI, not hundreds of task runs; with nothing stale no task runs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, get_client, runtime
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.private_server import private_server
from flows.session import Request, Session, prepare, run_session
from tasks.prefect_task import ensure_limits, prefect_submit
from tasks.prefect_ui import ProgressArtifacts, forward_logs, send_what_waits, show_markdown, show_table
from tulu_pipeline.artifacts.children import end_all_children
from tulu_pipeline.artifacts.plan import Status
from tulu_pipeline.artifacts.run import RunResult
from tulu_pipeline.artifacts.stage import ReportProgress, no_progress
from tulu_pipeline.errors import BadInput, MissingOnMachine, StageFailed
from tulu_pipeline.settings import read_settings

log = logging.getLogger(__name__)

_INTERRUPTED_DRAIN_SECONDS = 2.0


@flow(
    name="reproduce",
    flow_run_name="reproduce-{experiment}",
    task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]  # TaskRunner is invariant in the type of its future
    persist_result=False,
)
def reproduce(
    experiment: str,
    until: str | None = None,
    only: str | None = None,
    refresh: list[str] | None = None,
    store: str | None = None,
    profile: str | None = None,
    strict_rows: bool = False,
    update_sources: bool = False,
    unsafe_code: bool = False,
    max_usd: str | None = None,
) -> dict[str, Any]:
    """Make what is missing or stale of an experiment.

    Args:
        experiment: name, or `path/to/file.py:CONSTANT`.
        until: last stage to make.
        only: make only this selection and what it needs.
        refresh: selections to be made anew though they are there.
        store: root of the artifact store; absolute in a deployment.
        profile: execution profile: a name or a TOML file.
        strict_rows: fail on the first malformed row instead of dropping it.
        update_sources: resolve moving sources anew.
        unsafe_code: execute programs that a model wrote even where they cannot be isolated.
        max_usd: what the run may spend on servers that are paid, in US dollars.

    Returns:
        What the run did, as `tulu run --json` prints it.

    Raises:
        StageFailed: something failed; it names the root causes.
    """
    caller = _caller.get() or _Caller()
    request = Request(
        experiment=experiment,
        until=until,
        only=only,
        refresh=tuple(refresh or ()),
        store=store,
        profile=profile,
        strict_rows=strict_rows,
        update_sources=update_sources,
        unsafe_code=unsafe_code,
        max_usd=max_usd,
    )
    forward_logs()
    try:
        caller.result = _run(request, caller)
    except BaseException:  # a canceled run too
        end_all_children()
        raise
    if caller.result.failed:
        raise run_failed(caller.result)
    return caller.result.to_json()


def run_with_prefect(request: Request, progress: ReportProgress = no_progress) -> RunResult:
    """Run the flow in this process, on the configured Prefect server or one of its own.

    Args:
        request: what to make.
        progress: where progress goes beside the UI.

    Returns:
        What the run did; failures are in it.

    Raises:
        TuluError: nothing could be run: an unknown name, no server.
    """
    caller = _Caller(progress)
    token = _caller.set(caller)
    state: State[dict[str, Any]] = Crashed(message="the Prefect server went away")
    try:
        with _quiet_console(), _server() as caller.shared_server:
            parameters = dataclasses.asdict(request) | {"refresh": list(request.refresh)}
            try:
                state = reproduce(**parameters, return_state=True)
            except (httpx.HTTPError, PrefectException) as error:
                log.warning("the Prefect server did not hear the end of it: %s", error)
    finally:
        _caller.reset(token)
    if caller.result is None:
        if state.is_failed():
            state.result()  # raises what the flow raised
        raise StageFailed(f"the flow run ended {state.name}: {state.message}", "flow run", "run the same command again")
    return caller.result


def run_failed(result: RunResult) -> StageFailed:
    """One error that names the root causes of a run."""
    causes = [f"{failure.name}: {failure.error.what.splitlines()[0]}" for failure in result.failed]
    more = [f"… and {len(causes) - 10} more"] if len(causes) > 10 else []
    first = result.failed[0].error
    return StageFailed(f"{len(causes)} failed\n" + "\n".join(causes[:10] + more), first.where, first.fix)


@dataclass(slots=True)
class _Caller:
    """What whoever calls the flow in this process gives it, and gets from it beside its state."""

    progress: ReportProgress = no_progress
    shared_server: bool = True
    result: RunResult | None = None


_caller: ContextVar[_Caller | None] = ContextVar("caller", default=None)


def _run(request: Request, caller: _Caller) -> RunResult:
    artifacts = ProgressArtifacts()

    def progress(name: str, done: float, total: float | None, unit: str, note: str = "") -> None:
        caller.progress(name, done, total, unit, note)
        artifacts(name, done, total, unit, note)

    _refuse_relative_store(read_settings(request.store).store)
    session = prepare(request, progress)
    stale = [node for node in session.plan.nodes.values() if node.status is not Status.HIT]
    _show_cached(session)
    if stale and caller.shared_server:
        ensure_limits(session.ctx.profile)
    with artifacts.sending():
        result = run_session(session, prefect_submit(session.store, session.experiment.name, artifacts))
    _show_tables(session)
    return result


def _refuse_relative_store(url: str) -> None:
    """A worker starts each run in a folder of its own: a relative store would be a new one every time."""
    if runtime.deployment.id is not None and "://" not in url and not Path(url).is_absolute():
        raise BadInput(
            f"the store `{url}` of a deployment is a relative path",
            f"deployment {runtime.deployment.name}",
            "set its parameter `store`, or TULU_STORE where the worker runs, to an absolute path or URL",
        )


def _show_cached(session: Session) -> None:
    rows = [
        {
            "artifact": name,
            "digest": node.manifest.digest[:12],
            "seconds when made": node.manifest.seconds,
            "path": f"{session.store.url}/{node.manifest.payload}",
        }
        for name, node in session.plan.nodes.items()
        if node.status is Status.HIT and node.manifest is not None
    ]
    if rows:
        total = len(session.plan.nodes)
        show_table(f"{session.experiment.name}-cached", rows, f"{len(rows)} of {total} artifacts were there before")


def _show_tables(session: Session) -> None:
    for name, node in session.plan.nodes.items():
        if node.artifact.stage.name == "tabulate" and node.status is Status.HIT and node.manifest is not None:
            table = session.store.path(node.manifest) / "table.md"
            if table.is_file():
                show_markdown(f"{session.experiment.name}-table", table.read_text(), f"the table of {name}")


@contextmanager
def _server() -> Iterator[bool]:
    """Whether the server of the block is a shared one: the configured one is, the private one is not.

    Raises:
        MissingOnMachine: the configured server does not answer.
    """
    url = PREFECT_API_URL.value()
    if not url:
        log.info("starting a Prefect server for this run; set PREFECT_API_URL to use one that runs")
        with private_server() as own, temporary_settings({PREFECT_API_URL: own}), _sending_what_waits():
            yield False
        return
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise MissingOnMachine(
            f"the configured Prefect server does not answer: {problem}",
            url,
            "`prefect server start`, or unset PREFECT_API_URL, or run with `--runner local`",
        )
    with _sending_what_waits():
        yield True


@contextmanager
def _sending_what_waits() -> Iterator[None]:
    """At the end of the block; whoever interrupts it is not kept waiting for the view of it."""
    try:
        yield
    except BaseException:
        send_what_waits(_INTERRUPTED_DRAIN_SECONDS)
        raise
    send_what_waits()


@contextmanager
def _quiet_console() -> Iterator[None]:
    """Keep Prefect's own lines off the console: they go to the server, ours to stderr already."""
    loggers = [logging.getLogger(), logging.getLogger("prefect")]
    consoles = [each for logger in loggers for each in logger.handlers if isinstance(each, PrefectConsoleHandler)]
    levels = [console.level for console in consoles]
    for console in consoles:
        console.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for console, level in zip(consoles, levels, strict=True):
            console.setLevel(level)
