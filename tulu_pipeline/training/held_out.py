"""The held-out loss: how well the model predicts conversations of the mixture that it is not trained on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tulu_pipeline.training.batching.batches import step_batches
from tulu_pipeline.training.batching.data import MixtureTokens
from tulu_pipeline.training.batching.plans import padded_plan, step_plan
from tulu_pipeline.training.batching.steps import row_budget_tokens
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.model.loss import micro_batch_loss
from tulu_pipeline.training.model.output_head import OutputHead
from tulu_pipeline.training.tracking.record import HELD_OUT_FILE, HeldOutRecord, now, read_held_out


class HeldOut:
    """The loss over the held-out conversations, all ranks together, in the layout of the job.

    Args:
        engine: DeepSpeed's.
        job: whose recipe says how many and how often.
        mixture: holds them.
        rank: which one this is.
        pad_id: fills up.
        head: of the model, where the loss is taken there.
    """

    def __init__(
        self,
        engine: Any,
        job: TrainingJob,
        mixture: MixtureTokens,
        *,
        rank: int,
        pad_id: int,
        head: OutputHead | None = None,
    ) -> None:
        self._engine, self._rank, self._pad_id, self._head = engine, rank, pad_id, head
        self._mixture, self._every = mixture, job.recipe.held_out_every_steps
        positions = np.arange(len(mixture.held_out_lengths))
        profile = job.profile
        if not len(positions):
            self._plan = None
        elif profile.layout == "padded":
            self._plan = padded_plan(
                positions, ranks=job.ranks, conversations_per_row=profile.micro_batch_conversations
            )
        else:
            budget = row_budget_tokens(job.recipe, profile)
            self._plan = step_plan(positions, mixture.held_out_lengths, ranks=job.ranks, budget_tokens=budget)

    def due(self, step: int, total: int) -> bool:
        """Whether to look after `step` steps of `total`: before the first, every so often, and at the end."""
        return self._plan is not None and (step % self._every == 0 or step == total)

    def measure(self, step: int) -> HeldOutRecord:
        """The loss after `step` steps; all ranks call this together.

        It is one mean over all supervised tokens, so neither ranks nor layout change it by more than rounding.
        """
        assert self._plan is not None
        started = time.perf_counter()
        batches, counts = step_batches(
            self._mixture.held_out_at(self._plan.positions),
            self._plan,
            self._mixture.held_out_lengths,
            rank=self._rank,
            norm="token_mean",
            virtual_conversations=1,
            pad_id=self._pad_id,
        )
        total = torch.zeros((), dtype=torch.float64, device=self._engine.device)
        self._engine.eval()
        with torch.no_grad():
            for batch in batches:
                total += micro_batch_loss(self._engine, batch, self._engine.device, self._head)
        self._engine.train()
        dist.all_reduce(total)
        return HeldOutRecord(
            step=step,
            loss=float(total),
            conversations=counts.conversations,
            supervised_tokens=counts.supervised_tokens,
            seconds=time.perf_counter() - started,
            at=now(),
        )


def looked_at(work: Path, step: int) -> bool:
    """Whether the record of a training that goes on after `step` steps already holds the loss there."""
    return step > 0 and any(record.step == step for record in read_held_out(work / HELD_OUT_FILE))
