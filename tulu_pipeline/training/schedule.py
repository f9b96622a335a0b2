"""The learning rate: linear warm-up, then linear decay, over optimizer steps of the whole job."""

from __future__ import annotations

from tulu_pipeline.specs.recipe import Recipe


def warmup_steps(recipe: Recipe, total: int) -> int:
    """Steps of warm-up; the ratio rounds down, as in the original (`finetune.py`)."""
    return recipe.warmup_steps if recipe.warmup_steps is not None else int(total * recipe.warmup_ratio)


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate of step `step` (counted from 0) of `total`.

    As `transformers.get_linear_schedule_with_warmup`: with a warm-up the first step has rate 0, and the decay would
    reach its end at step `total`, one after the last.
    """
    warmup = warmup_steps(recipe, total)
    if step < warmup:
        share = step / warmup
    else:
        left = max(0.0, (total - step) / max(1, total - warmup))
        share = recipe.final_learning_rate_share + (1.0 - recipe.final_learning_rate_share) * left
    return recipe.learning_rate * share
