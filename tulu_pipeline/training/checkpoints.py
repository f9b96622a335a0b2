"""When the ranks save resumable state, how they write it together, and how they go on from it."""

from __future__ import annotations

import shutil
from typing import Any

import torch.distributed as dist

from tulu_pipeline.errors import StageFailed
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.record import Recorder
from tulu_pipeline.training.state import TAG, commit_state, state_folder, state_identity, unfinished_folder


class Checkpoints:
    """The resumable state of one training; all ranks call its methods together.

    Args:
        engine: DeepSpeed's.
        job: whose profile says how often.
        rank: which one this is.
    """

    def __init__(self, engine: Any, job: TrainingJob, rank: int) -> None:
        self._engine, self._job, self._rank = engine, job, rank

    def load(self) -> int:
        """Go on from the state that the job names; the steps that lie behind it, 0 for a new training.

        Raises:
            StageFailed: the state cannot be read.
        """
        step = self._job.resume_step
        if step:
            folder = state_folder(self._job.work, step)
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
            if loaded is None:  # it only warns, and would go on from the base model
                raise StageFailed("the saved state cannot be read", str(folder), "remove that folder, then run again")
        return step

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps."""
        every = self._job.profile.checkpoint_every_steps
        return bool(every) and step % every == 0

    def save(self, step: int, recorder: Recorder | None) -> None:
        """Save the state after `step` steps; what was saved before goes once it is whole."""
        folder = unfinished_folder(self._job.work, step)
        if self._rank == 0 and folder.exists():
            shutil.rmtree(folder)
        dist.barrier()
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
        if recorder is not None:
            recorder.flush()
            commit_state(self._job.work, step, state_identity(self._job.ranks, self._job.profile.zero_stage))
        dist.barrier()
