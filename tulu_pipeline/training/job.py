"""What the parent tells the ranks: one JSON file, read by each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tulu_pipeline.profile import Layout
from tulu_pipeline.specs.recipe import Recipe


class TrainingJob(BaseModel):
    """One finetuning, as the ranks see it.

    Attributes:
        recipe: what to do.
        tokens: folder of each component's tokens and how often each conversation is seen in an epoch.
        model: folder of the base model.
        out: folder the checkpoint is exported to.
        work: folder for resumable state and the running record.
        ranks: processes.
        layout: see `training.plans`.
        micro_batch_conversations: of a forward pass of the layout `padded`.
        row_tokens: that a forward pass of the layout `step` may hold.
        threads: OpenMP threads of each rank.
        zero_stage: DeepSpeed's.
        deepspeed: its configuration.
        checkpoint_every_steps: 0 never.
        resume_step: the step whose saved state to go on from; 0 starts anew.
        rendezvous: file through which the ranks find each other; must not exist.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    recipe: Recipe
    tokens: tuple[tuple[Path, int], ...]
    model: Path
    out: Path
    work: Path
    ranks: int
    layout: Layout
    micro_batch_conversations: int
    row_tokens: int
    threads: int
    zero_stage: int
    deepspeed: dict[str, Any]
    checkpoint_every_steps: int
    resume_step: int
    rendezvous: Path
