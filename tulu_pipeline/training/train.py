"""The training of one rank: load, go on where it was cut off, step by step, export."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import torch

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.profile import device_name
from tulu_pipeline.training.batches import MicroBatch, StepCounts, step_batches
from tulu_pipeline.training.checkpoints import Checkpoints
from tulu_pipeline.training.conversion import convert_saved_state
from tulu_pipeline.training.data import MixtureTokens, made_ahead
from tulu_pipeline.training.engine import start_engine
from tulu_pipeline.training.export import export_checkpoint
from tulu_pipeline.training.held_out import HeldOut, looked_at
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.kernels import choose_kernels
from tulu_pipeline.training.loading import load_model
from tulu_pipeline.training.loss import micro_batch_loss
from tulu_pipeline.training.measures import Meter, over_ranks
from tulu_pipeline.training.order import Indices
from tulu_pipeline.training.output_head import OutputHead
from tulu_pipeline.training.record import Recorder
from tulu_pipeline.training.schedule import learning_rate
from tulu_pipeline.training.steps import Steps
from tulu_pipeline.training.stopping import StopRequests
from tulu_pipeline.training.tensorboard import TensorBoard

_SECONDS_BETWEEN_EVENTS = 0.5


def train(job: TrainingJob, rank: int) -> None:
    """Train and export; all ranks call this together.

    Raises:
        StageFailed: the loss or its gradient is no number, the saved state cannot be read, the export is not the
            trained model.
        BadInput: nothing to train on, or the model does not fit the layout.
    """
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    # What costs nothing comes first: it is refused before a model is loaded.
    mixture = MixtureTokens(job.tokens, held_out=recipe.held_out_conversations, seed=recipe.seed)
    steps = Steps(mixture.lengths, recipe, job.profile)
    convert_saved_state(job, rank)
    loaded = load_model(job)
    engine = start_engine(job, loaded.model)
    checkpoints = Checkpoints(engine, job, rank)
    start = checkpoints.load()
    kernels = choose_kernels(engine, job)
    pad_id = loaded.tokenizer.pad_token_id
    held_out = HeldOut(engine, job, mixture, rank=rank, pad_id=pad_id, head=kernels.head)
    look_first = held_out.due(start, steps.total) and not looked_at(job.work, start)
    looks = recipe.held_out_conversations > 0
    recorder = None
    if rank == 0:
        recorder = Recorder(job.work, start, [TensorBoard(job.work, start)], looks=looks, note=_note)
    if recorder is not None:
        emit(
            {
                "event": "ready",
                "step": start,
                "total": steps.total,
                "seconds_loading": checkpoints.seconds_loading,
                "device": device_name(),
                "kernels": kernels.named(),
            }
        )
    requests = StopRequests(job.stop_file, rank)
    meter = Meter(engine, job, steps)

    def prepared(step: int) -> tuple[list[MicroBatch], StepCounts, Indices]:
        plan = steps.plan(step)
        batches, counts = step_batches(
            mixture.at(plan.positions),
            plan,
            mixture.lengths,
            rank=rank,
            norm=recipe.loss_norm,
            virtual_conversations=recipe.loss_micro_batch_conversations,
            pad_id=pad_id,
        )
        return batches, counts, mixture.lengths[plan.positions]

    def look(step: int) -> None:
        record = held_out.measure(step)
        if recorder is not None:
            recorder.add(record)
            emit({"event": "held_out", **asdict(record)})

    engine.train()
    if look_first:
        look(start)
    last_event = 0.0
    for step, ((batches, counts, lengths), waited) in made_ahead(prepared, range(start, steps.total)):
        started = time.perf_counter() - waited
        rate = learning_rate(recipe, step, steps.total)
        # Dropout is a function of the step, so there is no state of it to save.
        torch.manual_seed(recipe.seed + 1_000_003 * (1 + step * job.ranks + rank))
        part = _optimizer_step(engine, batches, rate, job.ranks, kernels.head)
        grad_norm = engine.get_global_grad_norm()
        seen = over_ranks(
            part,
            rank=rank,
            ranks=job.ranks,
            data_seconds=waited,
            wishes=(
                checkpoints.time_is_up(),
                requests.asked(),
                grad_norm is not None and not math.isfinite(grad_norm),
            ),
        )
        time_is_up, stop, gradient_broke = seen.wishes  # all ranks go the same way
        if not math.isfinite(seen.loss):
            raise StageFailed(f"the loss is {seen.loss} at step {step + 1}", str(job.model), "lower the learning rate")
        if gradient_broke:  # DeepSpeed would skip the step, or not even that
            what = f"the gradient is no finite number at step {step + 1}, where the loss is {seen.loss:g}"
            raise StageFailed(what, str(job.model), "lower the learning rate, or see what that step trains on")
        if recorder is not None:
            record = meter.record(
                step + 1,
                seen,
                counts,
                lengths,
                learning_rate=rate,
                seconds=time.perf_counter() - started,
                tokens_before=recorder.tokens,
            )
            recorder.add(record)
            if time.monotonic() - last_event > _SECONDS_BETWEEN_EVENTS or step + 1 == steps.total:
                last_event = time.monotonic()
                emit({"event": "step", "total": steps.total, **asdict(record)})
        if held_out.due(step + 1, steps.total) and not stop:
            look(step + 1)  # before the state is saved: what goes on from there has this behind it
        due = time_is_up or checkpoints.due(step + 1, last=step + 1 == steps.total)
        saved = (stop or due) and checkpoints.save(step + 1, recorder)
        if stop:
            if recorder is not None:
                recorder.close()
                emit({"event": "interrupted", "step": step + 1, "saved": saved})
            return
    requests.close()
    if recorder is not None:
        recorder.close()
        emit({"event": "exporting"})
    export_checkpoint(engine, job, rank, loaded)


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
