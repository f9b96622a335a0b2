"""Run the stale part of a graph: one loop over the frontier, whoever carries the work out.

After each completion the artifacts above it get their keys; one whose key is already published is a HIT and stops
the wave there (early cutoff). Branches fail alone.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.children import end_all_children, stop_all_children
from tulu_pipeline.artifacts.execute import Outcome, Ready, execute
from tulu_pipeline.artifacts.interrupts import Terminated, raise_if_asked
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.plan import Node, Plan, Status
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import BadInput, TuluError
from tulu_pipeline.profile import Slot

log = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0  # for threads to clean up after an interrupt
_LISTEN_EVERY_SECONDS = 1.0  # for an interrupt that someone swallowed


class Pending(Protocol):
    """A submitted piece of work: a `concurrent.futures.Future`, a `PrefectFuture`."""

    def add_done_callback(self, fn: Callable[[Any], Any]) -> Any: ...
    def result(self) -> Any: ...


# Sets the readable name of an artifact.
Point = Callable[[str, Manifest], None]
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
        The result; failures are in it, not raised. KeyboardInterrupt ends all children and is raised; SIGTERM lets
        those save that can.

    Raises:
        StoreError: the store cannot be written at the very start.
    """
    started = time.monotonic()
    frontier = _Frontier(plan, ctx.profile.slots())
    result = RunResult()
    finished: queue.Queue[tuple[str, Pending]] = queue.Queue()
    there = {name: node.manifest for name, node in plan.nodes.items() if node.digest and node.manifest}
    store.tidy(there.values())
    point = partial(store.set_ref, experiment)
    for name, manifest in there.items():
        point(name, manifest)
    for name, node in plan.nodes.items():
        if node.unresolved:
            _fail(name, _unresolved(node), frontier, result, point)
    try:
        while True:
            for unit, ready in frontier.take():
                work = partial(execute, ready, store, ctx)
                try:
                    pending = submit(unit, [item.node.artifact for item in ready], work)
                except Exception as error:  # noqa: BLE001 - whoever carries the work out could not start it
                    pending = Future[Outcome]()
                    pending.set_exception(error)
                pending.add_done_callback(partial(_put, finished, unit))
            if not frontier.running:
                break
            unit, pending = _next(finished)
            _take_in(_outcome_of(unit, pending, frontier), frontier, result, point)
            on_change(plan)
    except BaseException as error:
        try:
            if isinstance(error, Terminated) or not isinstance(error, KeyboardInterrupt):
                stop_all_children()
        finally:  # Ctrl-C meanwhile, too
            end_all_children()
        raise
    failed = {failure.name for failure in result.failed}
    result.blocked = [name for name in plan.nodes if plan.nodes[name].status is not Status.HIT and name not in failed]
    result.hit = plan.count()[Status.HIT] - len(result.executed) - len(result.found)
    result.seconds = time.monotonic() - started
    if result.executed:
        try:
            _record(plan, store, experiment, result)
        except TuluError as error:
            result.failed.append(Failure(f"record of {experiment}", error))
    return result


@contextmanager
def local_threads() -> Iterator[Submit]:
    """Carry work out in threads of this process.

    An exception inside, such as KeyboardInterrupt, waits a little for them and then leaves them behind: they end
    with the process, and the store is made for that.
    """
    threads: list[threading.Thread] = []

    def submit(unit: str, artifacts: Sequence[Artifact], work: Callable[[], Outcome]) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        threads.append(threading.Thread(target=_carry_out, args=(work, future), name=unit, daemon=True))
        threads[-1].start()
        return future

    try:
        yield submit
    except BaseException:
        deadline = time.monotonic() + _GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise
    for thread in threads:
        thread.join()


class _Frontier:
    """Which pieces of work can start, given what is made, what failed and which slots are free."""

    def __init__(self, plan: Plan, slots: Mapping[Slot, int]) -> None:
        self.plan, self.slots = plan, dict(slots)
        self.running: dict[str, Sequence[Ready]] = {}
        self._given_up: set[str] = set()
        self._being_made: set[str] = set()  # keys
        self._units: dict[str, list[str]] = {}
        for name, node in plan.nodes.items():
            unit = node.artifact.unit if node.artifact.stage.batch else name
            self._units.setdefault(unit, []).append(name)

    def take(self) -> list[tuple[str, Sequence[Ready]]]:
        """Units that start now; their slots are taken.

        A batch starts once all of it can. Where that leaves nothing to do, one of it needs another: then it starts
        with what it has.
        """
        taken = self._take(whole=True)
        return taken if taken or self.running else self._take(whole=False)

    def done(self, unit: str) -> Sequence[Ready]:
        """`unit` has ended; its slot is free."""
        ready = self.running.pop(unit)
        self.slots[ready[0].node.artifact.slot] += 1
        self._being_made -= {str(item.node.key) for item in ready}
        return ready

    def give_up(self, name: str) -> list[str]:
        """`name` failed: what needs it is blocked, what tolerates its absence goes on without.

        Returns:
            The names of the latter that turn out to be there.
        """
        lost = dict.fromkeys(self.plan.twins(name))
        stack = list(lost)
        while stack:
            for consumer in self.plan.consumers[stack.pop()]:
                if consumer not in lost and not self.plan.nodes[consumer].artifact.stage.tolerates_missing:
                    lost[consumer] = None
                    stack.append(consumer)
        self._given_up.update(lost)
        return self.plan.gave_up(lost)

    def _take(self, *, whole: bool) -> list[tuple[str, Sequence[Ready]]]:
        taken: list[tuple[str, Sequence[Ready]]] = []
        for unit in list(self._units):
            if unit in self.running:
                continue
            nodes = [self.plan.nodes[name] for name in self._units[unit] if not self._settled(name)]
            if not nodes:
                del self._units[unit]
                continue
            stale = {node.key: node for node in reversed(nodes) if node.status is Status.MISS}  # one for each key
            slot = nodes[0].artifact.slot
            complete = all(node.status is Status.MISS for node in nodes)
            if stale and (complete or not whole) and self.slots[slot] > 0 and not self._being_made & stale.keys():
                self.slots[slot] -= 1
                self._being_made |= {str(key) for key in stale}
                self.running[unit] = [self._ready(node) for node in reversed(stale.values())]
                taken.append((unit, self.running[unit]))
        return taken

    def _settled(self, name: str) -> bool:
        return name in self._given_up or self.plan.nodes[name].status is Status.HIT

    def _ready(self, node: Node) -> Ready:
        made = {name: self.plan.nodes[source.name] for name, source in node.artifact.inputs.items()}
        return Ready(node, {name: found.manifest if found.digest else None for name, found in made.items()})


def _outcome_of(unit: str, pending: Pending, frontier: _Frontier) -> Outcome:
    ready = frontier.done(unit)
    try:
        outcome: Outcome = pending.result()
    except Exception as error:  # noqa: BLE001 - the carrier itself failed (a crashed or cancelled task)
        failure = error if isinstance(error, TuluError) else TuluError(f"{type(error).__name__}: {error}", unit)
        outcome = Outcome(failed={item.node.artifact.name: failure for item in ready})
    return outcome


def _take_in(outcome: Outcome, frontier: _Frontier, result: RunResult, point: Point) -> None:
    found_above: list[str] = []
    for names, made in ((result.executed, outcome.made), (result.found, outcome.found)):
        for name, manifest in made.items():
            names.append(name)
            try:
                for twin in frontier.plan.twins(name):
                    point(twin, manifest)
                found_above += frontier.plan.made(name, manifest)
            except TuluError as error:
                outcome.failed.setdefault(name, error)
    _point_at_hits(found_above, frontier, result, point)
    for name, cause in outcome.failed.items():
        _fail(name, cause, frontier, result, point)


def _point_at_hits(names: Sequence[str], frontier: _Frontier, result: RunResult, point: Point) -> None:
    """Name what turned out to be there once its key was known, as what was there from the start is named."""
    for name in names:
        manifest = frontier.plan.nodes[name].manifest
        assert manifest is not None, f"{name} is there"
        try:
            point(name, manifest)
        except TuluError as error:
            _fail(name, error, frontier, result, point)


def _fail(name: str, cause: TuluError, frontier: _Frontier, result: RunResult, point: Point) -> None:
    log.error("failed %s: %s", name, cause.what.partition("\n")[0])
    result.failed.append(Failure(name, cause))
    _point_at_hits(frontier.give_up(name), frontier, result, point)


def _unresolved(node: Node) -> TuluError:
    sources = [node.artifact.sources[name].address() for name in node.unresolved]
    return BadInput(
        f"never resolved: {', '.join(sources)}", node.artifact.name, "run with --update-sources, which pins it"
    )


def _carry_out(work: Callable[[], Outcome], future: Future[Outcome]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - as every executor does: it is raised where the result is asked for
        future.set_exception(error)


def _next(finished: queue.Queue[tuple[str, Pending]]) -> tuple[str, Pending]:
    while True:
        raise_if_asked()
        with suppress(queue.Empty):
            return finished.get(timeout=_LISTEN_EVERY_SECONDS)


def _put(finished: queue.Queue[tuple[str, Pending]], unit: str, pending: Pending) -> None:
    finished.put((unit, pending))


def _record(plan: Plan, store: Store, experiment: str, result: RunResult) -> None:
    """Keep what this run stands on: names and keys, for `gc` and for people."""
    moment = datetime.now(UTC)
    keys = {name: node.key for name, node in plan.nodes.items() if node.status is Status.HIT}
    record = {"experiment": experiment, "finished": moment.isoformat(timespec="seconds"), "keys": keys}
    path = f"runs/{moment:%Y%m%dT%H%M%S}-{experiment}-{uuid.uuid4().hex[:6]}.json"
    store.storage.write(path, json.dumps(record | result.to_json(), indent=1, ensure_ascii=False).encode())
