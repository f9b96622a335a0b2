"""A unit of work as a Prefect task run: its name, tags, slot and retries.

What Prefect must not do is as deliberate: no result, cache key or hook of Prefect's carries anything of ours, because
a failure in one of those ends COMPLETED. The stage publishes inside the task's body and the body raises.
No Prefect timeout either: in a worker thread it cannot interrupt anything that blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.tasks import Task
from prefect.utilities.annotations import quote

from tasks.prefect_ui import ProgressArtifacts, made_markdown, show_markdown
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.execute import Outcome
from tulu_pipeline.artifacts.run import Pending, Submit
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import StageFailed, Unreachable
from tulu_pipeline.profile import Profile, Slot

log = logging.getLogger(__name__)

SHARED_SLOTS: tuple[Slot, ...] = ("gpu", "api")  # what several runs compete for; CPU cores are each machine's own
RETRY_DELAYS_SECONDS = (10.0, 60.0)


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
            tags={"tulu", f"stage:{stage.name}", slot_tag(artifacts[0].slot)},
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
        folder = parcel.store.path(manifest) if manifest.stage == "finetune" else None
        show_markdown(name, made_markdown(name, manifest, link, folder), f"made {name}")
    errors = list(dict.fromkeys(outcome.failed.values()))
    if len(outcome.failed) > 1:
        raise StageFailed(
            f"{len(outcome.failed)} of {len(parcel.names)} failed: {', '.join(outcome.failed)}\n{errors[0].what}",
            errors[0].where,
            errors[0].fix,
        ) from errors[0]
    if errors:
        raise errors[0]
