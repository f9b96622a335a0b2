"""The training of one rank: load, go on where it was cut off, step by step, export."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.training.attention import use_packed_attention
from tulu_pipeline.training.batches import MicroBatch, step_batches
from tulu_pipeline.training.checkpoints import Checkpoints
from tulu_pipeline.training.conversion import convert_saved_state
from tulu_pipeline.training.data import MixtureTokens
from tulu_pipeline.training.engine import start_engine
from tulu_pipeline.training.export import export_checkpoint
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.loading import load_model
from tulu_pipeline.training.loss import micro_batch_loss
from tulu_pipeline.training.record import Recorder, StepRecord
from tulu_pipeline.training.schedule import learning_rate
from tulu_pipeline.training.steps import Steps
from tulu_pipeline.training.stopping import StopRequests

_SECONDS_BETWEEN_EVENTS = 0.5


def train(job: TrainingJob, rank: int) -> None:
    """Train and export; all ranks call this together.

    Raises:
        StageFailed: the loss is no number, the saved state cannot be read, the export is not the trained model.
        BadInput: nothing to train on, or the model does not fit the layout.
    """
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    convert_saved_state(job, rank)
    loaded = load_model(job)
    engine = start_engine(job, loaded.model)
    checkpoints = Checkpoints(engine, job, rank)
    start = checkpoints.load()
    mixture = MixtureTokens(job.tokens)
    steps = Steps(mixture.lengths, recipe, job.profile)
    if job.profile.layout == "step":
        use_packed_attention(engine.module, engine, engine.device)
    recorder = Recorder(job.work, start) if rank == 0 else None
    if rank == 0:
        emit({"event": "ready", "step": start, "total": steps.total, "seconds_loading": checkpoints.seconds_loading})
    requests = StopRequests(job.stop_file, rank)

    engine.train()
    last_event = 0.0
    for step in range(start, steps.total):
        started = time.perf_counter()
        rate = learning_rate(recipe, step, steps.total)
        plan = steps.plan(step)
        batches, counts = step_batches(
            mixture.at(plan.positions),
            plan,
            mixture.lengths,
            rank=rank,
            norm=recipe.loss_norm,
            virtual_conversations=recipe.loss_micro_batch_conversations,
            pad_id=loaded.tokenizer.pad_token_id,
        )
        # Dropout is a function of the step, so there is no state of it to save.
        torch.manual_seed(recipe.seed + 1_000_003 * (1 + step * job.ranks + rank))
        loss, time_is_up, stop = _optimizer_step(
            engine, batches, rate, job.ranks, lambda: (checkpoints.time_is_up(), requests.asked())
        )
        if not math.isfinite(loss):
            raise StageFailed(f"the loss is {loss} at step {step + 1}", str(job.model), "lower the learning rate")
        if recorder is not None:
            grad_norm = engine.get_global_grad_norm()
            record = StepRecord(
                step=step + 1,
                loss=loss,
                learning_rate=rate,
                grad_norm=None if grad_norm is None else float(grad_norm),
                conversations=counts.conversations,
                tokens=counts.tokens,
                supervised_tokens=counts.supervised_tokens,
                computed_tokens=counts.computed_tokens,
                seconds=time.perf_counter() - started,
            )
            recorder.add(record)
            if time.monotonic() - last_event > _SECONDS_BETWEEN_EVENTS or step + 1 == steps.total:
                last_event = time.monotonic()
                emit({"event": "step", "total": steps.total, **asdict(record)})
        saved = (stop or (step + 1 < steps.total and (time_is_up or checkpoints.due(step + 1)))) and checkpoints.save(
            step + 1, recorder
        )
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


def _optimizer_step(
    engine: Any, batches: list[MicroBatch], rate: float, ranks: int, wishes: Callable[[], tuple[bool, bool]]
) -> tuple[float, bool, bool]:
    """One step over this rank's micro-batches: the loss over all ranks, and whether any of them has either wish."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), device=engine.device)
    for index, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(index + 1 == len(batches))
        loss = micro_batch_loss(engine, batch, engine.device)
        # The weights already hold every mean; DeepSpeed divides by the ranks, so that is undone.
        engine.backward(loss * ranks, scale_wrt_gas=False)
        engine.step()
        total += loss.detach()
    shared = torch.stack([total, *total.new_tensor(wishes())])  # one collective for all of it
    dist.all_reduce(shared)
    loss_sum, first, second = shared.tolist()
    return loss_sum, first > 0, second > 0
