"""What is measured while a training runs: memory, waiting for data, the share of the hardware's peak, what is left.

What each rank knows of a step (its part of the loss, how long it waited, its memory) goes through one reduction: every
rank has places of its own in a small vector, so that a sum brings all of them to all ranks.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
import torch.distributed as dist

from tulu_pipeline.errors import NotFound
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.batching.batches import StepCounts
from tulu_pipeline.training.batching.steps import Steps
from tulu_pipeline.training.estimates.flops import peak_flops, training_flops
from tulu_pipeline.training.estimates.shape import ModelShape, model_shape
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.tracking.record import StepRecord, now

_RECENT_STEPS = 50
_KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OverRanks:
    """A step as all ranks saw it.

    Attributes:
        loss: the sum of the ranks' parts.
        data_seconds: of the rank that waited longest for its batches.
        memory_bytes: of the fullest rank: what tensors took at most on its GPU in this step; where there is no GPU,
            the most that its process ever had in memory.
        memory_reserved_bytes: what torch held of that GPU at most, fragments included; None where there is none.
        wishes: for each of those that were asked about, whether any rank has it.
    """

    loss: float
    data_seconds: float
    memory_bytes: int
    memory_reserved_bytes: int | None
    wishes: tuple[bool, ...]


def over_ranks(
    loss: torch.Tensor, *, rank: int, ranks: int, data_seconds: float, wishes: Sequence[bool] = ()
) -> OverRanks:
    """What all ranks know of the step that ends here; all of them call this, and it waits for all.

    Args:
        loss: this rank's part, a scalar.
        rank: which one this is.
        ranks: how many there are.
        data_seconds: how long this rank waited.
        wishes: what this rank would have all of them do, such as save their state.
    """
    own = torch.tensor([data_seconds, *_memory(), *wishes], dtype=torch.float64)  # exact for whole bytes up to 2^53
    # Row 0 holds the loss, row 1 + r what rank r knows.
    table = torch.zeros(1 + ranks, len(own), dtype=torch.float64, device=loss.device)
    table[0, 0] = loss
    table[1 + rank] = own.to(loss.device)
    dist.all_reduce(table)
    most = table[1:].amax(dim=0).tolist()
    return OverRanks(
        loss=float(table[0, 0]),
        data_seconds=most[0],
        memory_bytes=int(most[1]),
        memory_reserved_bytes=int(most[2]) if loss.is_cuda else None,
        wishes=tuple(map(bool, most[3:])),
    )


def _memory() -> tuple[int, int]:
    """(allocated, reserved) bytes at most: on the GPU since the last call, else of the process since its start."""
    if torch.cuda.is_available():
        found = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * _KIB, 0


class Meter:
    """Makes the record of each step, of one rank.

    Args:
        engine: DeepSpeed's.
        job: what is trained, and how.
        steps: how many there are.
    """

    def __init__(self, engine: Any, job: TrainingJob, steps: Steps) -> None:
        self._engine, self._steps = engine, steps
        trained = (each for each in engine.module.parameters() if each.requires_grad)
        self._utilization = Utilization(
            engine.module.config.to_dict(),
            job.recipe,
            # Under ZeRO-3 a parameter holds this rank's part alone; DeepSpeed notes what the whole has.
            adapter_parameters=0
            if job.recipe.lora is None
            else sum(getattr(p, "ds_numel", p.numel()) for p in trained),
            ranks=job.ranks,
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )
        self._remaining = Remaining(steps.total)

    def record(
        self,
        step: int,
        seen: OverRanks,
        counts: StepCounts,
        lengths: npt.ArrayLike,
        *,
        learning_rate: float,
        seconds: float,
        tokens_before: int,
    ) -> StepRecord:
        """Of the step that just ended.

        Args:
            step: counted from 1.
            seen: by all ranks.
            counts: what it held.
            lengths: of its conversations.
            learning_rate: of this step.
            seconds: that it took.
            tokens_before: trained on in all steps before.
        """
        grad_norm = self._engine.get_global_grad_norm()
        return StepRecord(
            step=step,
            loss=seen.loss,
            learning_rate=learning_rate,
            grad_norm=None if grad_norm is None else float(grad_norm),
            conversations=counts.conversations,
            tokens=counts.tokens,
            supervised_tokens=counts.supervised_tokens,
            computed_tokens=counts.computed_tokens,
            seconds=seconds,
            data_seconds=seen.data_seconds,
            idle_share=1.0 - counts.computed_tokens / counts.lockstep_tokens,
            memory_bytes=seen.memory_bytes,
            memory_reserved_bytes=seen.memory_reserved_bytes,
            mfu=self._utilization(lengths, seconds),
            epoch=step / self._steps.per_epoch,
            tokens_so_far=tokens_before + counts.tokens,
            seconds_left=self._remaining.after(step, seconds),
            at=now(),
        )


class Utilization:
    """Model FLOPs utilization: what the training needs, over what its GPUs could do in that time.

    None where that cannot be said: no GPU, a GPU whose data sheet is not known, a type other than bf16, an
    architecture whose operations are not counted.

    Args:
        config: of the model, as `config.json` holds it.
        recipe: its type; with adapters the base weights have no gradients.
        adapter_parameters: those that are trained, where adapters are.
        ranks: GPUs.
        device: name of a GPU, None where there is none.
    """

    def __init__(
        self, config: Mapping[str, Any], recipe: Recipe, *, adapter_parameters: int, ranks: int, device: str | None
    ) -> None:
        self._adapter_parameters = adapter_parameters
        peak = peak_flops(device) if device is not None and recipe.dtype == "bf16" else None
        self._peak = None if peak is None else peak * ranks
        self._shape = None if self._peak is None else _shape_or_none(config)

    def __call__(self, lengths: npt.ArrayLike, seconds: float) -> float | None:
        """Of a step over conversations with these lengths, padding and recomputation not counted as useful."""
        if self._shape is None or self._peak is None:
            return None
        flops = training_flops(self._shape, lengths, adapter_parameters=self._adapter_parameters)
        return flops / (self._peak * seconds)


def _shape_or_none(config: Mapping[str, Any]) -> ModelShape | None:
    try:
        return model_shape(config)
    except NotFound:
        return None


class Remaining:
    """How long the steps that are left will take, by the last 50: saving and evaluating in between count too."""

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT_STEPS + 1)

    def after(self, step: int, seconds: float, clock: float | None = None) -> float:
        """Seconds left after step `step` (counted from 1), which took `seconds` and ended now.

        Args:
            step: counted from 1.
            seconds: of this step; all there is to go by after the first.
            clock: a monotonic one's time; None reads it.
        """
        self._recent.append((time.monotonic() if clock is None else clock, step))
        (first_time, first_step), (last_time, last_step) = self._recent[0], self._recent[-1]
        per_step = (last_time - first_time) / (last_step - first_step) if last_step > first_step else seconds
        return per_step * (self._total - step)
