"""Starts the ranks of a finetuning through DeepSpeed's launcher, follows them and collects what they leave."""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.profile import Profile, has_gpu
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.exits import how_it_ended
from tulu_pipeline.training.job import ADAPTER_FOLDER, TrainingJob
from tulu_pipeline.training.launchers import check_launcher, launch_command, rank_environment
from tulu_pipeline.training.node import NODES_FOLDER
from tulu_pipeline.training.record import (
    HELD_OUT_FILE,
    STEPS_FILE,
    TENSORBOARD_FOLDER,
    HeldOutRecord,
    StepRecord,
    read_held_out,
    read_steps,
)
from tulu_pipeline.training.state import newest_state, other_releases, state_identity
from tulu_pipeline.training.summary import TRAINING_FILE, record_metrics, step_note
from tulu_pipeline.training.trackers import TRACKING_LOG, Ending, Trackers, keep_offline_runs
from tulu_pipeline.training.zero import deepspeed_config

log = logging.getLogger(__name__)

_LOG_FILE = "train.log"


def finetune(
    *,
    name: str,
    recipe: Recipe,
    tokens: Sequence[tuple[Path, int]],
    model: Path,
    out: Path,
    aux: Path,
    work: Path,
    ctx: RunContext,
    key: str = "",
) -> dict[str, Any]:
    """Finetune `model` and write a checkpoint that `transformers` opens into `out`.

    Called again after it was cut off, it goes on from the newest saved state in `work`, with the losses it would
    have had.

    Args:
        name: for progress.
        recipe: what to do.
        tokens: folder of each component's tokens and how often each conversation is seen in an epoch, in the order
            of the mixture.
        model: folder of the base model.
        out: folder for the checkpoint.
        aux: folder for the record: `steps.jsonl`, `held_out.jsonl`, `tensorboard/`, `training.json`, `train.log`.
        work: folder for resumable state; survives a kill.
        ctx: the profile says how many ranks, which ZeRO stage, how large a micro-batch.
        key: of the artifact; what trackers know the run by.

    Returns:
        Metrics: steps, losses, tokens, speed, memory, where it was resumed, notes.

    Raises:
        StageFailed: a rank failed; `what` is the first rank's error.
        BadInput: the profile does not fit the machine.
        MissingOnMachine: a tracker is asked for whose client is not installed.
    """
    profile = ctx.profile
    check_launcher(profile)
    here = state_identity(profile.ranks * profile.nodes, profile.zero_stage)
    state, left_out = newest_state(work, here)
    follower = _Follower(name=name, ctx=ctx)
    for reason in left_out:
        follower.note(reason)
    if state is not None:
        follower.note(f"resumed after step {state.step}")
        if other := other_releases(state.identity, here):
            follower.note(f"the saved state is of {other}")
    elif left_out:
        follower.note("starting over; what was saved stays")
    if profile.launcher == "local" and not has_gpu():
        follower.note("no GPU: ranks talk through gloo and the optimizer is torch's, nothing is compiled")
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    job = TrainingJob(
        recipe=recipe,
        profile=profile,
        tokens=tuple((folder.absolute(), repeat) for folder, repeat in tokens),
        model=model.absolute(),
        out=out.absolute(),
        work=work.absolute(),
        deepspeed=deepspeed_config(recipe, profile, universal=state is not None and (state.universal or state.convert)),
        resume=state,
        stop_file=work.absolute() / f"stop-{uuid.uuid4().hex}",
        rendezvous=work.absolute() / f"rendezvous-{uuid.uuid4().hex}",
    )
    job_file = work / "job.json"
    job.write(job_file)
    with _collected(work, aux, follower):
        trackers = Trackers(name=name, key=key, recipe=recipe, profile=profile, work=work, settings=ctx.settings)
        try:
            run_child(
                launch_command(job_file.absolute(), profile),
                ctx=ctx,
                log=work / _LOG_FILE,
                # On one machine its host name need not resolve.
                env=rank_environment(profile, "" if has_gpu() else "lo") if profile.launcher == "local" else {},
                on_event=follower.on_event,
                ask_to_stop=partial(_ask_to_stop, job.stop_file, follower),
            )
        except StageFailed as error:
            failure = follower.failure_after(error)
            if failure and not follower.interrupted:
                where, fix = follower.where or error.where, follower.fix or "see the whole log there"
                raise StageFailed(failure, where, fix) from error
            if not follower.interrupted:
                raise
        finally:
            for file in (job.rendezvous, job.stop_file):
                with suppress(OSError):  # of a name that nobody asks for again
                    file.unlink(missing_ok=True)
            for problem in trackers.end(follower.ending):
                follower.note(problem)
        if follower.interrupted:
            raise StageFailed(follower.interrupted, name, "the same command goes on from there")
        if not follower.done:
            # The launcher can end with code 0 although it was killed.
            raise StageFailed("the ranks ended without a checkpoint", str(work / _LOG_FILE), "see the whole log there")
    metrics = record_metrics(list(read_steps(work / STEPS_FILE)), list(read_held_out(work / HELD_OUT_FILE)))
    metrics |= _metrics(profile, state.step if state else 0, follower, trackers)
    (aux / TRAINING_FILE).write_text(json.dumps({"schema_version": 1, **metrics}, indent=1) + "\n")
    return metrics


@dataclass(slots=True, kw_only=True)
class _Follower:
    """Turns the ranks' events into progress."""

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
    seconds_loading_state: float = 0.0
    reached: tuple[int, int] = (0, 0)  # step, total
    where: str = ""  # of the failure, where it is not the log
    fix: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ending(self) -> Ending:
        """How the training ended, once it has."""
        if self.done:
            return "finished"
        return "failed" if self.failure else "interrupted"

    def note(self, text: str) -> None:
        log.info("%s: %s", self.name, text)
        self.notes.append(text)

    def on_event(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        if kind == "ready":
            self.ready_seconds = time.monotonic() - self.started
            self.seconds_loading_state += event["seconds_loading"]
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
        elif kind == "converted":
            self.seconds_loading_state += event["seconds"]
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

    def failure_after(self, error: StageFailed) -> str:
        """What the ranks said, or how the one ended that said nothing; "" where neither is known."""
        if self.failure or self.gone is None:
            return self.failure
        return how_it_ended(self.gone, getattr(error.__cause__, "returncode", None))

    def _on_step(self, record: StepRecord, total: int) -> None:
        self.reached = record.step, total
        self.ctx.progress(self.name, record.step, total, "steps", step_note(record, self.held_out))


def _ask_to_stop(stop_file: Path, follower: _Follower) -> float:
    """Ask the ranks to save and end; the seconds they may take, 0 where there is nothing to save yet."""
    if not follower.running:
        return 0.0
    if follower.exporting:  # nobody looks at the file any more
        log.warning("%s: waiting for its export", follower.name)
        return follower.ctx.profile.stop_seconds
    stop_file.touch()
    log.warning("%s: saving, then ending", follower.name)
    return follower.ctx.profile.stop_seconds


def _failure(event: dict[str, Any]) -> str:
    """Of a rank, of a rank on a node, or of a node; which node is then part of the error."""
    if event["rank"] is None:
        return str(event["error"])
    node = f" on {event['node']}" if "node" in event else ""
    return f"rank {event['rank']}{node} failed: {event['error']}"


@contextmanager
def _collected(work: Path, aux: Path, follower: _Follower) -> Iterator[None]:
    """Copy the record beside the checkpoint when the block has ended; after a failure too, which it never hides."""
    try:
        yield
    except BaseException:
        try:
            _collect(work, aux)
        except OSError as error:
            follower.note(f"the record could not be copied beside the checkpoint: {error}")
        raise
    _collect(work, aux)


def _collect(work: Path, aux: Path) -> None:
    aux.mkdir(parents=True, exist_ok=True)
    for file in (STEPS_FILE, HELD_OUT_FILE, _LOG_FILE, TRACKING_LOG):
        if (work / file).exists():
            shutil.copyfile(work / file, aux / file)
    for folder in (TENSORBOARD_FOLDER, ADAPTER_FOLDER, NODES_FOLDER):
        if (work / folder).exists():
            shutil.copytree(work / folder, aux / folder, dirs_exist_ok=True)
    keep_offline_runs(work, aux)


def _metrics(profile: Profile, resume_step: int, follower: _Follower, trackers: Trackers) -> dict[str, Any]:
    metrics = {
        "seconds_starting": follower.ready_seconds,
        "seconds_loading_state": follower.seconds_loading_state,
        "resumed_from_step": resume_step,
        "saves_failed": len(follower.saves_failed),
        "ranks": profile.ranks * profile.nodes,
        "nodes": profile.nodes,
        "zero_stage": profile.zero_stage,
        "layout": profile.layout,
        "notes": follower.notes,
        "device": follower.device,
        "kernels": follower.kernels,
    }
    addresses = trackers.addresses()
    return metrics | ({"tracked_at": addresses} if addresses else {})
