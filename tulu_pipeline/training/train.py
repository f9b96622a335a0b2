"""The training of one rank: load, go on where it was cut off, step by step, export."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.profile import device_name
from tulu_pipeline.training.batching.batches import MicroBatch, StepCounts, step_batches
from tulu_pipeline.training.batching.data import MixtureTokens, made_ahead
from tulu_pipeline.training.batching.order import Indices
from tulu_pipeline.training.batching.steps import Steps
from tulu_pipeline.training.engine import start_engine
from tulu_pipeline.training.held_out import HeldOut, looked_at
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.model.kernels import choose_kernels
from tulu_pipeline.training.model.loading import load_model
from tulu_pipeline.training.model.loss import micro_batch_loss
from tulu_pipeline.training.model.output_head import OutputHead
from tulu_pipeline.training.saving.checkpoints import Checkpoints
from tulu_pipeline.training.saving.conversion import convert_saved_state
from tulu_pipeline.training.saving.export import export_checkpoint
from tulu_pipeline.training.schedule import learning_rate
from tulu_pipeline.training.stopping import StopRequests
from tulu_pipeline.training.tracking.measures import Meter, over_ranks
from tulu_pipeline.training.tracking.record import Recorder
from tulu_pipeline.training.tracking.tensorboard import TensorBoard

_SECONDS_BETWEEN_EVENTS = 0.5


def train(job: TrainingJob, rank: int) -> None:
    """Train and export; all ranks call this together.

    Raises:
        StageFailed: the loss or its gradient is no number, the saved state cannot be read, the export is not the
            trained model.
        BadInput: nothing to train on, or the model does not fit the layout.
    """
    training = _Training(job, rank)
    if training.take_steps():
        training.export()


class _Training:
    """What one rank holds, and does in each step; the ranks call its methods together."""

    def __init__(self, job: TrainingJob, rank: int) -> None:
        torch.manual_seed(job.recipe.seed)
        self._job, self._rank = job, rank
        # What costs nothing comes first: it is refused before a model is loaded.
        held_out = job.recipe.held_out_conversations
        self._mixture = MixtureTokens(job.tokens, held_out=held_out, seed=job.recipe.seed)
        self._steps = Steps(self._mixture.lengths, job.recipe, job.profile)
        self._seconds = {"loading_model": 0.0, "resuming": 0.0}
        with self._counted_as("resuming"):
            convert_saved_state(job, rank)
        with self._counted_as("loading_model"):
            self._loaded = load_model(job)
        self._engine = start_engine(job, self._loaded.model)
        self._checkpoints = Checkpoints(self._engine, job, rank)
        with self._counted_as("resuming"):
            self._start = self._checkpoints.load()
        kernels = choose_kernels(self._engine, job)
        self._head, self._layers, self._pad_id = kernels.head, kernels.layers, self._loaded.tokenizer.pad_token_id
        self._held_out = HeldOut(self._engine, job, self._mixture, rank=rank, pad_id=self._pad_id, head=kernels.head)
        with self._counted_as("resuming"):
            due = self._held_out.due(self._start, self._steps.total)
            self._look_first = due and not self._looked_at_start()
            self._recorder = self._new_recorder() if rank == 0 else None
        self._tell(
            "ready",
            step=self._start,
            total=self._steps.total,
            seconds_loading_model=self._seconds["loading_model"],
            seconds_resuming=0.0 if job.resume is None else self._seconds["resuming"],
            device=device_name(),
            kernels=kernels.named(),
        )
        self._told_at = 0.0
        self._requests = StopRequests(job.stop_file, rank)
        self._meter = Meter(self._engine, job, self._steps)

    def take_steps(self) -> bool:
        """Take every step that is left; False where it was asked to stop before the last of them."""
        self._engine.train()
        if self._look_first:
            self._look(self._start)
        total = self._steps.total
        for step, (prepared, waited) in made_ahead(self._prepare, range(self._start, total)):
            wishes = self._take_step(step, prepared, waited)
            done = step + 1
            if self._held_out.due(done, total) and not wishes.stop:
                self._look(done)  # before the state is saved: what goes on from there has this behind it
            self._save_if_due(done, wishes)
            if wishes.stop:
                return False
        self._requests.close()
        return True

    def export(self) -> None:
        """Close the record and write the checkpoint."""
        if self._recorder is not None:
            self._recorder.close()
        self._tell("exporting")
        if self._layers is not None:
            self._layers.remove()  # the model that is opened for comparison is on the CPU
        export_checkpoint(self._engine, self._job, self._rank, self._loaded)

    @contextmanager
    def _counted_as(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[what] += time.perf_counter() - started

    def _looked_at_start(self) -> bool:
        """What the first rank's disk says: on a shared one that of another may lag, and all must go the same way."""
        seen = torch.tensor(float(self._rank == 0 and looked_at(self._job.work, self._start)))
        seen = seen.to(self._engine.device)
        dist.broadcast(seen, src=0)
        return bool(seen)

    def _new_recorder(self) -> Recorder:
        work, looks = self._job.work, self._job.recipe.held_out_conversations > 0
        return Recorder(work, self._start, [TensorBoard(work, self._start)], looks=looks, note=_note)

    def _prepare(self, step: int) -> _Prepared:
        plan, recipe = self._steps.plan(step), self._job.recipe
        batches, counts = step_batches(
            self._mixture.at(plan.positions),
            plan,
            self._mixture.lengths,
            rank=self._rank,
            norm=recipe.loss_norm,
            virtual_conversations=recipe.loss_micro_batch_conversations,
            pad_id=self._pad_id,
        )
        return _Prepared(batches, counts, self._mixture.lengths[plan.positions])

    def _take_step(self, step: int, prepared: _Prepared, waited: float) -> _Wishes:
        started = time.perf_counter() - waited
        recipe, ranks = self._job.recipe, self._job.ranks
        rate = learning_rate(recipe, step, self._steps.total)
        # Dropout is a function of the step, so there is no state of it to save.
        torch.manual_seed(recipe.seed + 1_000_003 * (1 + step * ranks + self._rank))
        part = _optimizer_step(self._engine, prepared.batches, rate, ranks, self._head)
        grad_norm = self._engine.get_global_grad_norm()
        seen = over_ranks(
            part,
            rank=self._rank,
            ranks=ranks,
            data_seconds=waited,
            wishes=_Wishes(
                save=self._checkpoints.time_is_up(),
                stop=self._requests.asked(),
                refuse=grad_norm is not None and not math.isfinite(grad_norm),
            ),
        )
        wishes = _Wishes(*seen.wishes)
        self._refuse_no_number(step + 1, seen.loss, wishes)
        if self._recorder is not None:
            record = self._meter.record(
                step + 1,
                seen,
                prepared.counts,
                prepared.lengths,
                learning_rate=rate,
                seconds=time.perf_counter() - started,
                tokens_before=self._recorder.tokens,
            )
            self._recorder.add(record)
            if time.monotonic() - self._told_at > _SECONDS_BETWEEN_EVENTS or step + 1 == self._steps.total:
                self._told_at = time.monotonic()
                self._tell("step", total=self._steps.total, **asdict(record))
        return wishes

    def _refuse_no_number(self, step: int, loss: float, wishes: _Wishes) -> None:
        model, fix = str(self._job.model), "lower the learning rate"
        if not math.isfinite(loss):
            raise StageFailed(f"the loss is {loss} at step {step}", model, fix)
        if wishes.refuse:  # DeepSpeed would skip the step, or not even that
            what = f"the gradient is no finite number at step {step}, where the loss is {loss:g}"
            raise StageFailed(what, model, f"{fix}, or see what that step trains on")

    def _look(self, step: int) -> None:
        record = self._held_out.measure(step)
        if not math.isfinite(record.loss):
            what = f"the held-out loss is {record.loss} after step {step}"
            raise StageFailed(what, str(self._job.model), "lower the learning rate, or see what is held out")
        if self._recorder is not None:
            self._recorder.add(record)
        self._tell("held_out", **asdict(record))

    def _save_if_due(self, step: int, wishes: _Wishes) -> None:
        due = wishes.stop or wishes.save or self._checkpoints.due(step, last=step == self._steps.total)
        saved = due and self._checkpoints.save(step, self._recorder)
        if wishes.stop:
            if self._recorder is not None:
                self._recorder.close()
            self._tell("interrupted", step=step, saved=saved)

    def _tell(self, event: str, **values: Any) -> None:
        """One rank speaks for all."""
        if self._rank == 0:
            emit({"event": event, **values})


class _Prepared(NamedTuple):
    """A step's micro-batches of this rank, and of all ranks what they hold together."""

    batches: list[MicroBatch]
    counts: StepCounts
    lengths: Indices


class _Wishes(NamedTuple):
    """What one rank would have all of them do after a step, or what any of them would: all go the same way.

    Attributes:
        save: its clock says that a state is due.
        stop: it was asked to.
        refuse: its gradient is no finite number.
    """

    save: bool
    stop: bool
    refuse: bool


def _note(text: str) -> None:
    emit({"event": "note", "text": text})


def _optimizer_step(
    engine: Any, batches: list[MicroBatch], rate: float, ranks: int, head: OutputHead | None
) -> torch.Tensor:
    """One step over this rank's micro-batches; this rank's part of the loss."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), dtype=torch.float64, device=engine.device)
    for index, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(index + 1 == len(batches))
        loss = micro_batch_loss(engine, batch, engine.device, head)
        # The weights already hold every mean; DeepSpeed divides by the ranks, so that is undone.
        engine.backward(loss * ranks, scale_wrt_gas=False)
        engine.step()
        total += loss.detach()
    return total
