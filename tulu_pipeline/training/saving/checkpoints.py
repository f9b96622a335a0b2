"""When the ranks save resumable state, how they write it together, and how they go on from it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.launching.failures import cut
from tulu_pipeline.training.saving.state import (
    TAG,
    commit_state,
    discard_unfinished,
    new_unfinished_folder,
    prune_states,
    saved_steps,
    state_folder,
    state_identity,
    unfinished_folder,
)
from tulu_pipeline.training.tracking.record import Recorder


class Checkpoints:
    """The resumable state of one training; all ranks call its methods together.

    Args:
        engine: DeepSpeed's.
        job: whose profile says how often.
        rank: which one this is.
    """

    def __init__(self, engine: Any, job: TrainingJob, rank: int) -> None:
        self._engine, self._job, self._rank = engine, job, rank
        self._writer = _Writer()
        self._saved_at = time.monotonic()
        # Later states were not gone on from: they are not this training's to remove.
        start = 0 if job.resume is None else job.resume.step
        self._own = {step for step in saved_steps(job.work) if step <= start} if rank == 0 else set()
        engine.checkpoint_engine = self._writer
        engine._copy_recovery_script = _no_script

    def load(self) -> int:
        """Go on from the state that the job names; the steps that lie behind it, 0 for a new training.

        Raises:
            StageFailed: the state cannot be read.
        """
        state = self._job.resume
        if state is None:
            return 0
        folder, fix = state.loaded_from, "remove that folder, then run again"
        try:
            # Of adapters only these are saved; what they sit on comes from the base model.
            whole = self._job.recipe.lora is None
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=whole)
        except Exception as error:
            raise StageFailed(f"the saved state cannot be read: {error}", str(folder), fix) from error
        if loaded is None:  # it only warns, and would go on from the base model
            raise StageFailed("the saved state cannot be read", str(folder), fix)
        return state.step

    def time_is_up(self) -> bool:
        """Whether the clock says that a state is due. Clocks differ: the first rank's counts, the others say no."""
        minutes = self._job.profile.checkpoint_every_minutes
        return self._rank == 0 and minutes > 0 and time.monotonic() - self._saved_at >= 60 * minutes

    def due(self, step: int, *, last: bool) -> bool:
        """Whether to save after `step` steps, whatever the clock says; after the `last` in any case.

        An export that fails is then repeated, and nothing else.
        """
        profile = self._job.profile
        every = profile.checkpoint_every_steps
        if last:
            return bool(every or profile.checkpoint_every_minutes)
        return bool(every) and step % every == 0

    def save(self, step: int, recorder: Recorder | None) -> bool:
        """Save the state after `step` steps, and let the oldest go; whether that went well, the same on all ranks.

        What cannot be written is told to the run, and what was saved before stays.
        """
        final = state_folder(self._job.work, step)
        problem = _problem_of(lambda: self._prepare(final, recorder))
        if self._all_well(problem, step, final):
            self._writer.problem = None
            self._engine.save_checkpoint(
                str(unfinished_folder(final)), tag=TAG, save_latest=False, exclude_frozen_parameters=True
            )
            problem = self._writer.problem
            if self._all_well(problem, step, final):
                problem = _problem_of(lambda: self._commit(final, step))
                if self._all_well(problem, step, final):
                    self._saved_at = time.monotonic()
                    return True
        if self._rank == 0:
            discard_unfinished(final)
        self._saved_at = time.monotonic()  # the next time it is due, not at every step from now on
        dist.barrier()
        return False

    def _prepare(self, final: Path, recorder: Recorder | None) -> None:
        if recorder is not None:
            recorder.flush()  # the record is never behind the state
        if self._rank == 0:
            new_unfinished_folder(final)

    def _commit(self, final: Path, step: int) -> None:
        if self._rank == 0:
            commit_state(final, state_identity(self._job.ranks, self._job.profile.zero_stage))
            self._own.add(step)
            with contextlib.suppress(OSError):  # it is saved; the next time that pruning is tried, this is too
                prune_states(self._job.work, self._own, self._job.profile.checkpoints_kept)

    def _all_well(self, problem: str | None, step: int, final: Path) -> bool:
        """Whether no rank has a problem; one that has says so."""
        if problem is not None:
            told = {"error": cut(problem), "where": str(final)}
            emit({"event": "save_failed", "rank": self._rank, "step": step, **told})
        troubled = torch.tensor(float(problem is not None), device=self._engine.device)
        dist.all_reduce(troubled, op=dist.ReduceOp.MAX)
        return not float(troubled)


class _Writer(TorchCheckpointEngine):  # type: ignore[misc]  # DeepSpeed has no types
    """Writes what DeepSpeed saves, and keeps the first error for the end.

    `save_checkpoint` has barriers between its files: an error that one rank raised there would leave the others waiting
    in the next of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.problem: str | None = None

    def save(self, state_dict: Any, path: str) -> None:
        self.problem = self.problem or _problem_of(lambda: _write(state_dict, path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.problem = self.problem or _problem_of(lambda: Path(path).mkdir(parents=True, exist_ok=exist_ok))


def _write(state: Any, path: str) -> None:
    with Path(path).open("wb") as file:
        told = _Told(file)
        try:
            torch.save(state, told)
        except RuntimeError as error:  # torch's own, of a place in the file that it did not expect
            raise told.error or OSError(str(error)) from error
        file.flush()
        os.fsync(file.fileno())


class _Told:
    """A file to write to, and the first error in that. Torch lets it get lost where it writes the file's end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def _problem_of(action: Callable[[], None]) -> str | None:
    """What the disk has against it; None where it went well."""
    try:
        action()
    except OSError as error:
        return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return None


def _no_script(save_path: str) -> None:
    """DeepSpeed lays scripts beside each state that nobody here calls."""
