"""Starts the ranks of a finetuning through DeepSpeed's launcher, follows them and collects what they leave."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.profile import Profile, has_gpu
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.job import ADAPTER_FOLDER, TrainingJob
from tulu_pipeline.training.launching.follower import Follower
from tulu_pipeline.training.launching.launchers import check_launcher, launch_command, rank_environment
from tulu_pipeline.training.launching.node import NODES_FOLDER
from tulu_pipeline.training.saving.state import SavedState, newest_state, other_releases, state_identity
from tulu_pipeline.training.tracking.record import (
    HELD_OUT_FILE,
    STEPS_FILE,
    TENSORBOARD_FOLDER,
    read_held_out,
    read_steps,
)
from tulu_pipeline.training.tracking.summary import TRAINING_FILE, record_metrics
from tulu_pipeline.training.tracking.trackers import TRACKING_LOG, Trackers, keep_offline_runs
from tulu_pipeline.training.zero import deepspeed_config

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

    Called again after it was cut off, it goes on from the newest saved state in `work`, on the conversations that it
    would have had: on a CPU with the same losses, on a GPU as far as its kernels give the same numbers twice.

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
    follower = Follower(name=name, ctx=ctx)
    state = _newest_state(work, profile, follower)
    if profile.launcher == "local" and not has_gpu():
        follower.note("no GPU: ranks talk through gloo and the optimizer is torch's, nothing is compiled")
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
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
    with _collected(work, aux, follower):
        trackers = Trackers(name=name, key=key, recipe=recipe, profile=profile, work=work, settings=ctx.settings)
        try:
            _run_ranks(job, follower)
        finally:
            for problem in trackers.end(follower.ending):
                follower.note(problem)
    metrics = record_metrics(list(read_steps(work / STEPS_FILE)), list(read_held_out(work / HELD_OUT_FILE)))
    metrics |= follower.metrics() | {
        "resumed_from_step": state.step if state else 0,
        "ranks": profile.ranks * profile.nodes,
        "nodes": profile.nodes,
        "zero_stage": profile.zero_stage,
        "layout": profile.layout,
    }
    if addresses := trackers.addresses():
        metrics["tracked_at"] = addresses
    (aux / TRAINING_FILE).write_text(json.dumps({"schema_version": 1, **metrics}, indent=1) + "\n")
    return metrics


def _newest_state(work: Path, profile: Profile, follower: Follower) -> SavedState | None:
    """What the training goes on from; the follower is told, and why what else there is will not do."""
    here = state_identity(profile.ranks * profile.nodes, profile.zero_stage)
    state, left_out = newest_state(work, here)
    for reason in left_out:
        follower.note(reason)
    if state is not None:
        follower.note(f"resumed after step {state.step}")
        if other := other_releases(state.identity, here):
            follower.note(f"the saved state is of {other}")
    elif left_out:
        follower.note("starting over; what was saved stays")
    return state


def _run_ranks(job: TrainingJob, follower: Follower) -> None:
    """Start the ranks and wait for their end.

    Raises:
        StageFailed: a rank failed, they were interrupted, or they ended without a checkpoint.
    """
    profile, job_file, log_file = job.profile, job.work / "job.json", job.work / _LOG_FILE
    job.write(job_file)
    try:
        run_child(
            launch_command(job_file, profile),
            ctx=follower.ctx,
            log=log_file,
            # On one machine its host name need not resolve.
            env=rank_environment(profile, "" if has_gpu() else "lo") if profile.launcher == "local" else {},
            on_event=follower.on_event,
            ask_to_stop=partial(follower.ask_to_stop, job.stop_file),
        )
    except StageFailed as error:
        if not follower.interrupted:
            if told := follower.error_after(error):
                raise told from error
            raise
    finally:
        for file in (job.rendezvous, job.stop_file):
            with suppress(OSError):  # of a name that nobody asks for again
                file.unlink(missing_ok=True)
    if follower.interrupted:
        raise StageFailed(follower.interrupted, follower.name, "the same command goes on from there")
    if not follower.done:
        # The launcher can end with code 0 although it was killed.
        raise StageFailed("the ranks ended without a checkpoint", str(log_file), "see the whole log there")


@contextmanager
def _collected(work: Path, aux: Path, follower: Follower) -> Iterator[None]:
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
