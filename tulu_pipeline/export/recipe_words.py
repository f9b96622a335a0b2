"""A recipe as sentences and as a table."""

from __future__ import annotations

import dataclasses

from tulu_pipeline.specs.recipe import Lora, Recipe

_LEARNED = {
    "tulu1": "each answer, its end mark and what stands between it and the next user tag",
    "eos": "each answer and its end mark",
}


def recipe_in_words(recipe: Recipe) -> str:
    """What was done, in the order in which a reader asks."""
    return " ".join((_weights(recipe), _order(recipe), _optimizer(recipe), _loss(recipe)))


def recipe_rows(recipe: Recipe) -> list[list[str]]:
    """Every setting with its value; adapters one row each."""
    rows = []
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, Lora):
            rows += [[f"lora.{part.name}", _plain(getattr(value, part.name))] for part in dataclasses.fields(value)]
        else:
            rows.append([field.name, _plain(value)])
    return rows


def _weights(recipe: Recipe) -> str:
    if recipe.lora is None:
        return f"All weights were finetuned, computing in {recipe.dtype}."
    lora = recipe.lora
    where = f"the layers {', '.join(lora.target_modules)}" if lora.target_modules else "every linear layer but the head"
    base = ", over frozen weights kept in 4-bit NormalFloat" if lora.quantization == "nf4" else ""
    return (
        f"Low-rank adapters of rank {lora.rank} (alpha {lora.alpha:g}, dropout {lora.dropout:g}) were trained on "
        f"{where}{base}, computing in {recipe.dtype}, and merged into the weights."
    )


def _order(recipe: Recipe) -> str:
    length = f"{recipe.epochs:g} epochs" + (f", at most {recipe.max_steps:,} steps" if recipe.max_steps else "")
    if recipe.batch_plan == "global":
        rows = f"{recipe.rows_per_step:,}" if recipe.rows_per_step else "a fixed number of"
        step = f"in steps of {rows} rows of {recipe.max_length_tokens:,} tokens, filled over the whole mixture"
    else:
        step = f"{recipe.conversations_per_step:,} conversations a step, cut at {recipe.max_length_tokens:,} tokens"
    return f"It saw the mixture for {length}, {step}."


def _optimizer(recipe: Recipe) -> str:
    warmup = (
        f"{recipe.warmup_steps:,} steps" if recipe.warmup_steps is not None else f"{recipe.warmup_ratio:.0%} of them"
    )
    end = f"{recipe.final_learning_rate_share:.0%} of it" if recipe.final_learning_rate_share else "zero"
    return (
        f"AdamW with a learning rate that rises to {recipe.learning_rate:g} over {warmup} and falls linearly to {end}; "
        f"weight decay {recipe.weight_decay:g}, gradients clipped to a norm of {recipe.clip_norm:g}."
    )


def _loss(recipe: Recipe) -> str:
    return f"It learned from {_LEARNED[recipe.loss_span]}."


def _plain(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
