"""From a request to a plan, and from a plan to a finished run; whoever carries the work out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.catalog import find_experiment
from flows.graph import graph_of
from flows.select import select, select_until
from tulu_pipeline.artifacts.artifact import Graph
from tulu_pipeline.artifacts.plan import Plan
from tulu_pipeline.artifacts.resolve import Resolver, SourcesLock
from tulu_pipeline.artifacts.run import RunResult, Submit, local_threads
from tulu_pipeline.artifacts.stage import ReportProgress, RunContext, no_progress
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.budget import Budget, dollars
from tulu_pipeline.errors import BadInput, NotFound, TuluError
from tulu_pipeline.profile import has_gpu, load_profile
from tulu_pipeline.settings import Settings, read_settings
from tulu_pipeline.specs.experiment import Experiment

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a run; plain values, so that a deployment can hold it.

    Attributes:
        experiment: name, or `path/to/file.py:CONSTANT`.
        until: last stage to make; None for all.
        only: a selection (see `flows.select`); what it needs is made too.
        refresh: selections to be made anew though they are there.
        store: root of the store; None takes TULU_STORE or `./store`.
        profile: name or path of an execution profile; None detects the machine.
        strict_rows: fail on the first malformed row.
        update_sources: resolve moving sources anew.
        unsafe_code: execute programs that a model wrote even where they cannot be isolated.
        max_usd: what the run may spend on servers that are paid, in US dollars; None is without bound.
    """

    experiment: str
    until: str | None = None
    only: str | None = None
    refresh: tuple[str, ...] = ()
    store: str | None = None
    profile: str | None = None
    strict_rows: bool = False
    update_sources: bool = False
    unsafe_code: bool = False
    max_usd: str | None = None


@dataclass(slots=True)
class Session:
    """A planned request."""

    request: Request
    experiment: Experiment
    graph: Graph
    plan: Plan
    store: Store
    ctx: RunContext

    def find_folder(self, name: str) -> Path | None:
        """Where the artifact `name` lies; None where it is not there."""
        node = self.plan.nodes[name]
        return None if node.digest is None or node.manifest is None else self.store.path(node.manifest)

    def folder(self, name: str) -> Path:
        """Where the artifact `name` lies.

        Raises:
            TuluError: it is not there, or only as it was before something changed.
        """
        if (folder := self.find_folder(name)) is None:
            raise self.lacks(name)
        return folder

    def lacks(self, name: str) -> TuluError:
        """The error that the artifact `name` is not there; of one that is stale it tells where its last build lies."""
        asked = self.request.experiment
        last = self.store.ref(self.experiment.name, name)
        if last is None or not self.store.has_payload(last):
            return TuluError(f"{name} is not there", self.store.url, f"`tulu run {asked} --only '{name}'` makes it")
        return TuluError(
            f"{name} is stale; the last one made under this name lies at {self.store.url}/{last.payload}",
            self.store.url,
            f"`tulu why '{name}' --experiment {asked}` says what has changed, "
            f"`tulu run {asked} --only '{name}'` makes it anew",
        )


def prepare(request: Request, progress: ReportProgress = no_progress) -> Session:
    """Resolve names, compile the graph and plan it; runs nothing.

    Raises:
        NotFound, BadInput: something in the request cannot be used.
    """
    experiment = with_available_engine(find_experiment(request.experiment))
    graph = graph_of(experiment)
    if request.only:
        graph = Graph(select(graph, request.only))
    if request.until:
        graph = Graph(select_until(graph, request.until))
    return prepare_graph(request, experiment, graph, progress)


def prepare_graph(
    request: Request, experiment: Experiment, graph: Graph, progress: ReportProgress = no_progress
) -> Session:
    """Plan a graph that is compiled already; runs nothing.

    Args:
        request: its experiment and selections have been followed.
        experiment: under whose name things are made.
        graph: what is wanted.
        progress: where progress goes.

    Raises:
        NotFound, BadInput: something in the request cannot be used.
    """
    settings = read_settings(request.store)
    if request.update_sources:
        update_sources(graph, settings)
    ctx = RunContext(
        profile=load_profile(request.profile),
        settings=settings,
        progress=progress,
        strict_rows=request.strict_rows,
        unsafe_code=request.unsafe_code,
        budget=Budget(dollars(request.max_usd)),
    )
    store = Store(settings.store)
    forced = {artifact.name for selection in request.refresh for artifact in select(graph, selection)}
    plan = Plan(graph, store, resolver_of(store, settings), forced)
    if request.strict_rows:
        _refuse_dropped_rows(plan, store)
    return Session(request, experiment, graph, plan, store, ctx)


def resolver_of(store: Store, settings: Settings) -> Resolver:
    """What tells the sources of a plan; hashes of local files are remembered in the store."""
    memory = store.storage.local / "local_hashes.json" if store.storage.local else None
    return Resolver(SourcesLock(settings.sources_lock), memory)


def selected_names(session: Session, selection: str) -> list[str]:
    """The artifacts of the session that `selection` names, in graph order.

    Raises:
        NotFound: nothing matches; says whose graph was searched.
    """
    try:
        return [found.name for found in select(session.graph, selection)]
    except NotFound as error:
        where = f"experiment `{session.experiment.name}`; --experiment names another"
        raise NotFound(error.what, where, error.fix) from error


def run_session(session: Session, submit: Submit, on_change: Callable[[Plan], None] = lambda plan: None) -> RunResult:
    """Make whatever the plan found stale."""
    from tulu_pipeline.artifacts.run import run

    return run(
        session.plan,
        session.store,
        session.ctx,
        experiment=session.experiment.name,
        submit=submit,
        on_change=on_change,
    )


def run_in_threads(session: Session) -> RunResult:
    """The same, in this process."""
    with local_threads() as submit:
        return run_session(session, submit)


def make_all(session: Session) -> RunResult:
    """Make whatever the plan found stale, in this process.

    Raises:
        TuluError: something could not be made; the first root cause.
    """
    result = run_in_threads(session)
    for failure in result.failed:
        raise TuluError(f"{failure.name}: {failure.error.what}", failure.error.where, failure.error.fix)
    return result


def with_available_engine(experiment: Experiment) -> Experiment:
    """The experiment on the engine that this machine can load; the change is said, and is part of the keys."""
    from tulu_pipeline.inference.engine import what_lacks

    if not ((experiment.models or experiment.tuned_models) and experiment.benchmarks):
        return experiment  # nothing generates
    if experiment.engine == "vllm" and (lack := what_lacks("vllm", gpu=has_gpu())):
        log.warning("vLLM cannot load here (%s): generating with transformers instead; %s", lack.what, lack.fix)
        return dataclasses.replace(experiment, engine="transformers")
    return experiment


def update_sources(graph: Graph, settings: Settings) -> None:
    """Resolve every moving source of the graph and write the lock."""
    from tulu_pipeline.artifacts.fetch import resolve_tracked
    from tulu_pipeline.artifacts.source import TrackedFile

    for artifact in graph:
        for source in artifact.sources.values():
            if isinstance(source, TrackedFile):
                log.info("%s is now %s", source.url, resolve_tracked(source, settings))


def _refuse_dropped_rows(plan: Plan, store: Store) -> None:
    """Strictness holds for what an earlier run published, too."""
    for name, node in plan.nodes.items():
        if node.digest is None or node.manifest is None or node.artifact.stage.name != "normalize":
            continue
        if dropped := node.manifest.metrics.get("dropped"):
            raise BadInput(
                f"{dropped:,} rows of {name} were dropped",
                str(store.path(node.manifest) / "aux" / "dropped.jsonl"),
                "mend the rows, or run without --strict-rows to leave them out",
            )
