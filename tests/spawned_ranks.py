"""Trainings of the real trainer on gloo ranks that are started once for many: what one start costs is paid once."""

from __future__ import annotations

import os
import shutil
import socket
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training_runs import PROFILE, RECIPE

from tulu_pipeline.errors import TuluError
from tulu_pipeline.profile import Profile
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.saving.state import newest_state, saved_steps, state_folder, state_identity
from tulu_pipeline.training.tracking.record import StepRecord, read_steps
from tulu_pipeline.training.zero import deepspeed_config


def make_job(folder: Path, model: Path, tokens: Path, profile: Profile = PROFILE, **changes: Any) -> TrainingJob:
    """A training into `folder`, with changes to the recipe."""
    recipe = replace(RECIPE, **changes)
    (folder / "work").mkdir(parents=True, exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    return TrainingJob(
        recipe=recipe,
        profile=profile,
        tokens=((tokens, 1),),
        model=model,
        out=folder / "out",
        work=folder / "work",
        deepspeed=deepspeed_config(recipe, profile),
        resume=None,
        stop_file=folder / "stop",
        rendezvous=folder / f"rendezvous-{uuid.uuid4().hex}",
    )


def run_jobs(
    jobs: list[TrainingJob], *, refused: Sequence[TrainingJob] = (), first: Callable[[int], None] | None = None
) -> None:
    """Run trainings of equally many ranks, one after the other.

    One that saves its state is run once more from the last state but the one at its end; what it recorded the first
    time is then `first.jsonl`. What the ranks print is `output-<rank>` in the work folder of the first.

    Args:
        jobs: these trainings.
        refused: then those that each rank must end by a TuluError, which is `refused-<rank>` in its folder.
        first: called with the rank in each of them, before any training; a function of a module.

    Raises:
        AssertionError: one of them failed; its folder holds the error.
    """
    import torch.multiprocessing

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_rank, (jobs, list(refused), first, port), nprocs=jobs[0].ranks)
    failed = [path.read_text() for job in (*jobs, *refused) for path in job.work.parent.glob("error-*")]
    assert not failed, "\n".join(failed)


def steps_of(folder: Path, name: str = "steps.jsonl") -> list[StepRecord]:
    return list(read_steps(folder / "work" / name))


def _rank(
    rank: int, jobs: list[TrainingJob], refused: list[TrainingJob], first: Callable[[int], None] | None, port: int
) -> None:
    output = os.open(jobs[0].work / f"output-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(jobs[0].ranks)} | where)
    import deepspeed
    import torch
    import torch.distributed as dist

    from tulu_pipeline.training.train import train

    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__ = {}  # nothing is compiled
    deepspeed.init_distributed(
        dist_backend="gloo",
        auto_mpi_discovery=False,
        init_method=f"file://{jobs[0].rendezvous}",
        rank=rank,
        world_size=jobs[0].ranks,
        verbose=False,
    )
    if first is not None:
        first(rank)
    for job in (*jobs, *refused):
        try:
            saving = replace(job.profile, checkpoints_kept=2)
            train(job.model_copy(update={"profile": saving}), rank)
            if job.profile.checkpoint_every_steps:
                if rank == 0:
                    shutil.copyfile(job.work / "steps.jsonl", job.work / "first.jsonl")
                    shutil.rmtree(state_folder(job.work, max(saved_steps(job.work))))
                dist.barrier()
                state, _ = newest_state(job.work, state_identity(job.ranks, job.profile.zero_stage))
                train(job.model_copy(update={"resume": state}), rank)
        except Exception as error:
            if job in refused and isinstance(error, TuluError):
                (job.work.parent / f"refused-{rank}").write_text(str(error))
                continue
            (job.work.parent / f"error-{rank}").write_text(traceback.format_exc())
            raise
