"""Run the stale part of a graph: one loop over the frontier, whoever carries the work out.

After each completion the artifacts above it get their keys; one whose key is already published is a HIT and stops
the wave there (early cutoff). Branches fail alone.
"""

from __future__ import annotations

import json
import logging
import queue
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.children import end_all_children
from tulu_pipeline.artifacts.execute import Outcome, Ready, execute
from tulu_pipeline.artifacts.plan import Plan, Status
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import TuluError
from tulu_pipeline.profile import Slot

log = logging.getLogger(__name__)


class Pending(Protocol):
    """A submitted piece of work: a `concurrent.futures.Future`, a `PrefectFuture`."""

    def add_done_callback(self, fn: Callable[[Any], Any]) -> Any: ...
    def result(self) -> Any: ...


# Starts `work` for the unit of this name; `artifacts` says what it makes.
Submit = Callable[[str, Sequence[Artifact], Callable[[], Outcome]], Pending]


@dataclass(frozen=True, slots=True)
class Failure:
    """A root cause: an artifact that failed, not one that merely waited for it."""

    name: str
    error: TuluError


@dataclass(slots=True)
class RunResult:
    """What a run did.

    Attributes:
        executed: names of the artifacts it made, in the order of completion.
        found: made meanwhile by another process.
        hit: number of artifacts that were there before, or came out by early cutoff.
        failed: root causes. blocked: artifacts that could not be tried because of them.
        seconds: wall time.
    """

    executed: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    hit: int = 0
    failed: list[Failure] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The form that scripts rely on."""
        return {
            "executed": self.executed,
            "found": self.found,
            "hit": self.hit,
            "failed": [
                {
                    "name": failure.name,
                    "what": failure.error.what,
                    "where": failure.error.where,
                    "fix": failure.error.fix,
                }
                for failure in self.failed
            ],
            "blocked": self.blocked,
            "seconds": round(self.seconds, 3),
        }


def run(
    plan: Plan,
    store: Store,
    ctx: RunContext,
    *,
    experiment: str,
    submit: Submit,
    on_change: Callable[[Plan], None] = lambda plan: None,
) -> RunResult:
    """Make whatever in `plan` is not there.

    Args:
        plan: brought up to date as artifacts are made.
        store: where they go.
        ctx: execution settings; its profile says how many stages of each kind run side by side.
        experiment: under whose name the readable references are set.
        submit: carries out a piece of work in the background.
        on_change: called after each completion.

    Returns:
        The result; failures are in it, not raised. KeyboardInterrupt ends all children and is raised.
    """
    started = time.monotonic()
    frontier = _Frontier(plan, ctx.profile.slots())
    result = RunResult()
    finished: queue.Queue[tuple[str, Pending]] = queue.Queue()
    for name, node in plan.nodes.items():
        if node.status is Status.HIT and node.manifest is not None:
            store.set_ref(experiment, name, node.manifest)
    try:
        while True:
            for unit, ready in frontier.take():
                artifacts = [item.node.artifact for item in ready]

                def work(ready: Sequence[Ready] = ready) -> Outcome:
                    return execute(ready, store, ctx)

                pending = submit(unit, artifacts, work)
                pending.add_done_callback(partial(_put, finished, unit))
            if not frontier.running:
                break
            unit, pending = finished.get()
            _take_in(unit, pending, frontier, result, store, experiment)
            on_change(plan)
    except KeyboardInterrupt:
        end_all_children()
        raise
    result.blocked = [name for name in frontier.given_up if name not in {failure.name for failure in result.failed}]
    result.hit = (
        sum(node.status is Status.HIT for node in plan.nodes.values()) - len(result.executed) - len(result.found)
    )
    result.seconds = time.monotonic() - started
    if result.executed:
        _record(plan, store, experiment, result)
    return result


class local_threads:  # noqa: N801 - used as a function: `with local_threads() as submit`
    """Carry work out in threads of this process."""

    def __init__(self, workers: int = 32) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="stage")

    def __enter__(self) -> Submit:
        def submit(unit: str, artifacts: Sequence[Artifact], work: Callable[[], Outcome]) -> Future[Outcome]:
            return self._pool.submit(work)

        return submit

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)


class _Frontier:
    """Which pieces of work can start, given what is made, what failed and which slots are free."""

    def __init__(self, plan: Plan, slots: Mapping[Slot, int]) -> None:
        self.plan, self.slots = plan, dict(slots)
        self.running: dict[str, Sequence[Ready]] = {}
        self.given_up: dict[str, None] = {}
        self._units: dict[str, list[str]] = {}
        for name, node in plan.nodes.items():
            unit = node.artifact.unit if node.artifact.stage.batch else name
            self._units.setdefault(unit, []).append(name)

    def take(self) -> list[tuple[str, Sequence[Ready]]]:
        """Units that start now; their slots are taken."""
        taken: list[tuple[str, Sequence[Ready]]] = []
        for unit in list(self._units):
            if unit in self.running:
                continue
            names = [name for name in self._units[unit] if not self._settled(name)]
            if not names:
                del self._units[unit]
                continue
            nodes = [self.plan.nodes[name] for name in names]
            slot = nodes[0].artifact.stage.slot
            if all(node.status is Status.MISS for node in nodes) and self.slots[slot] > 0:
                self.slots[slot] -= 1
                ready = [self._ready(name) for name in names]
                self.running[unit] = ready
                taken.append((unit, ready))
        return taken

    def done(self, unit: str) -> Sequence[Ready]:
        """`unit` has ended; its slot is free."""
        ready = self.running.pop(unit)
        self.slots[ready[0].node.artifact.stage.slot] += 1
        return ready

    def give_up(self, name: str) -> None:
        """`name` failed: what needs it is blocked, what tolerates its absence goes on without."""
        lost = [name]
        stack = [name]
        while stack:
            for consumer in self.plan.consumers[stack.pop()]:
                if consumer not in lost and not self.plan.nodes[consumer].artifact.stage.tolerates_missing:
                    lost.append(consumer)
                    stack.append(consumer)
        self.given_up.update(dict.fromkeys(lost))
        self.plan.gave_up(lost)

    def _settled(self, name: str) -> bool:
        return name in self.given_up or self.plan.nodes[name].status is Status.HIT

    def _ready(self, name: str) -> Ready:
        node = self.plan.nodes[name]
        inputs = {key: self.plan.nodes[source.name] for key, source in node.artifact.inputs.items()}
        return Ready(node, {key: made.manifest if made.digest is not None else None for key, made in inputs.items()})


def _take_in(
    unit: str, pending: Pending, frontier: _Frontier, result: RunResult, store: Store, experiment: str
) -> None:
    ready = frontier.done(unit)
    try:
        outcome: Outcome = pending.result()
    except Exception as error:  # noqa: BLE001 - the carrier itself failed (a crashed or cancelled task)
        outcome = Outcome()
        failure = error if isinstance(error, TuluError) else TuluError(f"{type(error).__name__}: {error}", unit)
        outcome.failed = {item.node.artifact.name: failure for item in ready}
    for names, made in ((result.executed, outcome.made), (result.found, outcome.found)):
        for name, manifest in made.items():
            names.append(name)
            store.set_ref(experiment, name, manifest)
            frontier.plan.made(name, manifest)
    for name, cause in outcome.failed.items():
        log.error("failed %s: %s", name, cause.what.splitlines()[0])
        result.failed.append(Failure(name, cause))
        frontier.give_up(name)


def _put(finished: queue.Queue[tuple[str, Pending]], unit: str, pending: Pending) -> None:
    finished.put((unit, pending))


def _record(plan: Plan, store: Store, experiment: str, result: RunResult) -> None:
    """Keep what this run stands on: names and keys, for `gc` and for people."""
    moment = datetime.now(UTC)
    keys = {name: node.key for name, node in plan.nodes.items() if node.status is Status.HIT}
    record = {"experiment": experiment, "finished": moment.isoformat(timespec="seconds"), "keys": keys}
    path = f"runs/{moment:%Y%m%dT%H%M%S}-{experiment}-{uuid.uuid4().hex[:6]}.json"
    store.storage.write(path, json.dumps(record | result.to_json(), indent=1, ensure_ascii=False).encode())
