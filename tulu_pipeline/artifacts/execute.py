"""One piece of work: lease, run the stage, publish. Whatever fails, nothing half-made is ever seen."""

from __future__ import annotations

import dataclasses
import errno
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.lease import Lease, acquire
from tulu_pipeline.artifacts.manifest import Manifest, digest_of
from tulu_pipeline.artifacts.plan import Node
from tulu_pipeline.artifacts.provenance import provenance
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext
from tulu_pipeline.artifacts.storage import store_error
from tulu_pipeline.artifacts.store import Attempt, Store
from tulu_pipeline.artifacts.versions import code_of
from tulu_pipeline.errors import BadInput, StageFailed, TuluError

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

    Never raises for a stage's failure: each artifact ends up made, found or failed. One that was made is failed too
    where something went wrong afterwards; it is there, and the run says what happened.
    """
    outcome = Outcome()
    work: dict[str, _Work] = {}
    try:
        for ready in sorted(unit, key=_key):  # one order for all processes, so that none waits in a circle
            held = _begin(ready, store, ctx, outcome)
            if held is not None:
                work[ready.node.artifact.name] = held
        if work:
            names = [ready.node.artifact.name for ready in unit]
            _run_stage({name: work[name] for name in names if name in work}, store, ctx, outcome)
    except BaseException as error:  # the boundary: whatever a stage raises, a SystemExit too, is its failure
        log.debug("failed", exc_info=error)
        _fail(unit, _as_tulu_error(error, next(iter(work), unit[0].node.artifact.unit)), outcome)
        if isinstance(error, KeyboardInterrupt):
            raise
    finally:
        for name, held in work.items():
            try:
                _let_go(held, store, published=name in outcome.made)
            except (TuluError, OSError) as error:
                outcome.failed.setdefault(name, _as_tulu_error(error, name))
    return outcome


@dataclass(frozen=True, slots=True)
class _Work:
    ready: Ready
    lease: Lease
    attempt: Attempt
    fingerprint: str  # of the code as it was when the work began


def _begin(ready: Ready, store: Store, ctx: RunContext, outcome: Outcome) -> _Work | None:
    """Take the lease and open folders; None when someone else published first."""
    artifact, key = ready.node.artifact, ready.node.key
    assert key is not None

    def published() -> Manifest | None:
        manifest = store.manifest(artifact.stage.name, key)
        return manifest if manifest is not None and store.has_payload(manifest) else None

    while True:
        lease = acquire(
            store.storage,
            key,
            name=artifact.name,
            stale_seconds=ctx.profile.lease_stale_seconds,
            on_wait=log.info,
            done=lambda: published() is not None,
        )
        try:
            manifest = published()
            if manifest is None and lease is not None:
                attempt = store.begin(artifact.stage.name, key)
                if ready.node.attempt:
                    store.add_attempt(ready.node.base_key, ready.node.attempt)
                return _Work(ready, lease, attempt, _fingerprint(artifact))
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        if lease is not None:
            lease.release()
        if manifest is not None:
            outcome.found[artifact.name] = manifest
            return None


def _run_stage(work: Mapping[str, _Work], store: Store, ctx: RunContext, outcome: Outcome) -> None:
    def on_child(pid: int) -> None:
        for held in work.values():
            held.lease.add_child(pid)

    since = time.monotonic()

    def publish(held: _Work, metrics: Metrics) -> None:
        nonlocal since
        _publish(held, metrics, time.monotonic() - since, store, ctx, outcome)
        since = time.monotonic()  # the next of a batch begins now

    ctx = dataclasses.replace(ctx, on_child=on_child)
    jobs = [_job(held, store, partial(publish, held)) for held in work.values()]
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


def _job(held: _Work, store: Store, publish: Callable[[Metrics], None]) -> Job[Any]:
    node = held.ready.node
    descriptors: dict[str, dict[str, Any]] = node.identity["sources"]
    return Job(
        name=node.artifact.name,
        params=node.artifact.params,
        inputs={name: None if made is None else store.path(made) for name, made in held.ready.inputs.items()},
        sources=node.artifact.sources,
        pinned={name: known["sha256"] for name, known in descriptors.items() if "sha256" in known},
        key=node.key or "",
        out=held.attempt.out,
        work=held.attempt.work,
        publish=publish,
    )


def _publish(held: _Work, metrics: Metrics, seconds: float, store: Store, ctx: RunContext, outcome: Outcome) -> None:
    node, name = held.ready.node, held.ready.node.artifact.name
    assert node.key is not None
    if name in outcome.made or name in outcome.found:
        raise StageFailed(f"{name} was published twice", name, "a bug of the stage")
    outputs, aux = store.seal(held.attempt)
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
            metrics={key: value for key, value in metrics.items() if key != "cost_usd"},
            provenance=provenance(ctx.profile),
            inputs={key: made.key for key, made in held.ready.inputs.items() if made is not None},
            fingerprint=held.fingerprint,
            seconds=round(seconds, 3),
            cost_usd=str(metrics.get("cost_usd", "0")),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    if manifest.payload == held.attempt.payload:
        outcome.made[name] = manifest
        log.info("done %s in %.1f s (%s)", name, seconds, manifest.digest[:12])
    else:
        outcome.found[name] = manifest
    held.lease.release()


def _fingerprint(artifact: Artifact) -> str:
    """Advisory, so code that is being edited stops nothing."""
    try:
        return code_of(artifact)
    except BadInput:
        return ""


def _let_go(held: _Work, store: Store, *, published: bool) -> None:
    try:
        if not published:
            store.discard_payload(held.attempt)
    finally:
        held.lease.release()


def _fail(unit: Sequence[Ready], failure: TuluError, outcome: Outcome) -> None:
    """The failure of all that is not there; of all of them where nothing is left to be made."""
    names = [ready.node.artifact.name for ready in unit]
    unmade = [name for name in names if name not in outcome.made and name not in outcome.found]
    outcome.failed.update(dict.fromkeys(unmade or names, failure))


def _as_tulu_error(error: BaseException, where: str) -> TuluError:
    if isinstance(error, TuluError):
        if not error.where:
            error.where = where
        return error
    failure: TuluError
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        failure = store_error(error, error.filename or where)
    elif isinstance(error, MemoryError):
        failure = StageFailed("out of memory", where, "use a profile with fewer slots or a smaller micro-batch")
    else:
        failure = StageFailed(f"{type(error).__name__}: {error}", where, "run with --debug for the traceback")
    failure.__cause__ = error
    return failure


def _key(ready: Ready) -> str:
    return ready.node.key or ""
