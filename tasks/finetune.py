"""Finetune: a base model and the tokens of a mixture to a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.specs.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneParams:
    """What is trained; how many ranks and which ZeRO stage is the profile's.

    Attributes:
        recipe: how.
        components: name and repeat of each component, in the order of the mixture; their tokens are the inputs
            `tokens_0`, `tokens_1`, ….
    """

    recipe: Recipe
    components: tuple[tuple[str, int], ...]


def run_finetune(job: Job[FinetuneParams], ctx: RunContext) -> Metrics:
    """Write a Hugging Face checkpoint; the record of the training goes to `aux`."""
    from tulu_pipeline.training.launch import finetune

    repeats = [repeat for _, repeat in job.params.components]
    return finetune(
        name=job.name,
        recipe=job.params.recipe,
        tokens=[(job.input(f"tokens_{index}"), repeat) for index, repeat in enumerate(repeats)],
        model=job.input("model"),
        out=job.out,
        aux=job.aux,
        work=job.work,
        ctx=ctx,
    )


# Releases of torch are no part of the key: rounding differs from one to the next as it does from run to run, and
# nobody wants weeks of training repeated for a bug-fix release. The manifest's metrics and log say what it ran on.
FINETUNE = Stage(name="finetune", version=3, params=FinetuneParams, run=run_finetune, deterministic=False, slot="gpu")
