"""One piece of work: lease, run the stage, publish. Whatever fails, nothing half-made is ever seen."""

from __future__ import annotations

import dataclasses
import errno
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tulu_pipeline.artifacts.lease import Lease, acquire
from tulu_pipeline.artifacts.manifest import Manifest, digest_of
from tulu_pipeline.artifacts.plan import Node
from tulu_pipeline.artifacts.provenance import provenance
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.artifacts.store import Attempt, Store
from tulu_pipeline.errors import StageFailed, TuluError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A stale artifact whose inputs are all there: the node as planned, its inputs' manifests (None: missing)."""

    node: Node
    inputs: Mapping[str, Manifest | None]


@dataclass(slots=True)
class Outcome:
    """What became of one piece of work, by artifact name.

    Attributes:
        made: published by this work. found: published by someone else meanwhile.
        failed: the error of each that was not published.
    """

    made: dict[str, Manifest] = field(default_factory=dict)
    found: dict[str, Manifest] = field(default_factory=dict)
    failed: dict[str, TuluError] = field(default_factory=dict)


def execute(unit: Sequence[Ready], store: Store, ctx: RunContext) -> Outcome:
    """Make the artifacts of one unit of work: one of them, or several of one batch group.

    Never raises for a stage's failure: each artifact ends up made, found or failed.
    """
    outcome = Outcome()
    work: dict[str, _Work] = {}
    try:
        for ready in sorted(unit, key=_key):
            held = _begin(ready, store, ctx, outcome)
            if held is not None:
                work[ready.node.artifact.name] = held
        if work:
            _run_stage(work, store, ctx, outcome)
    except Exception as error:  # the boundary: whatever a stage raises becomes its artifacts' failure
        failure = _as_tulu_error(error, next(iter(work), unit[0].node.artifact.unit))
        log.debug("failed", exc_info=error)
        for ready in unit:
            name = ready.node.artifact.name
            if name not in outcome.made and name not in outcome.found:
                outcome.failed[name] = failure
    finally:
        for held in work.values():
            if held.ready.node.artifact.name not in outcome.made:
                store.discard_payload(held.attempt)
            held.lease.release()
    return outcome


@dataclass(slots=True)
class _Work:
    ready: Ready
    lease: Lease
    attempt: Attempt
    started: float


def _begin(ready: Ready, store: Store, ctx: RunContext, outcome: Outcome) -> _Work | None:
    """Take the lease and open folders; None when someone else published first."""
    artifact, key = ready.node.artifact, ready.node.key
    assert key is not None

    def published() -> bool:
        manifest = store.manifest(artifact.stage.name, key)
        return manifest is not None and store.has_payload(manifest)

    lease = acquire(
        store.storage,
        key,
        name=artifact.name,
        stale_seconds=ctx.profile.lease_stale_seconds,
        on_wait=log.info,
        done=published,
    )
    manifest = store.manifest(artifact.stage.name, key)
    if manifest is not None and store.has_payload(manifest):
        outcome.found[artifact.name] = manifest
        if lease is not None:
            lease.release()
        return None
    if lease is None:
        return _begin(ready, store, ctx, outcome)
    try:
        if manifest is not None:
            store.retract(manifest)
        attempt = store.begin(artifact.stage.name, key)
        if ready.node.attempt:
            store.add_attempt(ready.node.base_key, ready.node.attempt)
    except BaseException:
        lease.release()
        raise
    return _Work(ready, lease, attempt, time.monotonic())


def _run_stage(work: Mapping[str, _Work], store: Store, ctx: RunContext, outcome: Outcome) -> None:
    def on_child(pid: int) -> None:
        for held in work.values():
            held.lease.add_child(pid)

    ctx = dataclasses.replace(ctx, on_child=on_child)
    jobs: list[Job[Any]] = []
    for name, held in work.items():
        artifact = held.ready.node.artifact
        jobs.append(
            Job(
                name=name,
                params=artifact.params,
                inputs={key: None if made is None else store.path(made) for key, made in held.ready.inputs.items()},
                sources=artifact.sources,
                out=held.attempt.out,
                work=held.attempt.work,
                publish=lambda metrics, held=held: _publish(held, metrics, store, ctx, outcome),  # type: ignore[misc]  # bound now
            )
        )
    stage = next(iter(work.values())).ready.node.artifact.stage
    log.info("start %s", ", ".join(work))
    run: Any = stage.run
    if stage.batch:
        run(jobs, ctx)
    else:
        jobs[0].publish(run(jobs[0], ctx))
    unpublished = [name for name in work if name not in outcome.made and name not in outcome.found]
    if unpublished:
        raise StageFailed(
            f"the stage ended without publishing {', '.join(unpublished)}", unpublished[0], "a bug of the stage"
        )


def _publish(held: _Work, metrics: Mapping[str, Any], store: Store, ctx: RunContext, outcome: Outcome) -> None:
    node, name = held.ready.node, held.ready.node.artifact.name
    assert node.key is not None
    metrics = dict(metrics)
    outputs, aux = store.seal(held.attempt)
    seconds = time.monotonic() - held.started
    manifest = store.publish(
        held.attempt,
        Manifest(
            key=node.key,
            name=name,
            stage=node.artifact.stage.name,
            identity=node.identity,
            payload=held.attempt.payload,
            digest=digest_of(outputs),
            outputs=outputs,
            aux=aux,
            metrics=metrics,
            provenance=provenance(ctx.profile),
            inputs={key: made.key for key, made in held.ready.inputs.items() if made is not None},
            seconds=round(seconds, 3),
            cost_usd=str(metrics.pop("cost_usd", "0")),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    held.lease.release()
    held.started = time.monotonic()  # the next of a batch begins now
    if manifest.payload == held.attempt.payload:
        outcome.made[name] = manifest
        log.info("done %s in %.1f s (%s)", name, seconds, manifest.digest[:12])
    else:
        outcome.found[name] = manifest


def _as_tulu_error(error: BaseException, where: str) -> TuluError:
    if isinstance(error, TuluError):
        if not error.where:
            error.where = where
        return error
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        path = error.filename or where
        failure: TuluError = StageFailed(
            "the disk is full", str(path), "free space, then run the same command: it goes on"
        )
    elif isinstance(error, MemoryError):
        failure = StageFailed("out of memory", where, "use a profile with fewer slots or a smaller micro-batch")
    else:
        failure = StageFailed(f"{type(error).__name__}: {error}", where, "run with --debug for the traceback")
    failure.__cause__ = error
    return failure


def _key(ready: Ready) -> str:
    return ready.node.key or ""
