"""One rank of a finetuning, started by a launcher: `python -m tulu_pipeline.training.worker job.json`."""

from __future__ import annotations

import argparse
import traceback
from datetime import timedelta
from pathlib import Path

import tulu_pipeline.training.unused_packages  # noqa: F401  # before the others

# isort: split
import deepspeed
import torch
import torch.distributed as dist

from tulu_pipeline.artifacts.child_side import emit, end_at_once, end_with_parent
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.settings import launched_rank
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.launching.failures import failure_event
from tulu_pipeline.training.launching.siblings import Siblings
from tulu_pipeline.training.train import train

_TIMEOUT = timedelta(hours=2)  # ranks wait while one exports
_SECONDS_TO_BE_GONE = 1.0  # an error in what ranks do together can come before the one that caused it has ended


def main() -> None:
    """Join the other ranks and train. The first rank to fail says why before it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    arguments = parser.parse_args()
    end_with_parent()
    job = TrainingJob.model_validate_json(arguments.job.read_text())
    rank = launched_rank().rank
    siblings = None
    try:
        _join(job)
        siblings = Siblings(rank, job.ranks)
        train(job, rank)
        siblings.is_over()
    except Exception as error:
        traceback.print_exc()
        if siblings is None or not siblings.one_is_gone(within_seconds=_SECONDS_TO_BE_GONE):
            emit(failure_event(rank, error))
        raise SystemExit(1) from error
    if torch.cuda.is_available():
        dist.destroy_process_group()
    end_at_once()  # all is saved and told


def _join(job: TrainingJob) -> None:
    torch.set_num_threads(job.profile.threads_per_rank)
    launched = launched_rank()
    if launched.world_size != job.ranks:
        raise StageFailed(f"the launcher started {launched.world_size} ranks instead of {job.ranks}", job.profile.name)
    if torch.cuda.is_available():
        torch.cuda.set_device(launched.local_rank)
    else:
        # DeepSpeed would compile a shared-memory operation when the group is made: minutes, and no training at all
        # where there is no C++ compiler. Without it collectives go through gloo. An empty table also spares it
        # from probing the compiler for all its other operations.
        deepspeed.ops.__compatible_ops__ = {}
    # On one machine a file instead of a port: nothing can take it between now and when all ranks are up.
    deepspeed.init_distributed(
        init_method=f"file://{job.rendezvous}" if job.profile.launcher == "local" else "env://",
        rank=launched.rank,
        world_size=job.ranks,
        timeout=_TIMEOUT,
        verbose=False,
    )


if __name__ == "__main__":
    main()
