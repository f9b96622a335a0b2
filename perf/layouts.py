"""Tokens per second of a finetuning in the layouts `padded` and `step`, with what the lengths alone would allow.

The same training, through the same launcher on the same ranks in the same run, once in each layout; `padded` is what
the original did: neighbors in the drawn order, padded to the longest, and transformers' own attention. Lengths are
drawn as in `perf/pack.py`, with the Tülu mixture's mean; half of the tokens are supervised. The first step of each is
not counted. `ideal_ratio` is the ratio of the tokens that the slowest rank computes in each pass; attention, which
grows with the square of a length, can bring more. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from perf.normalize import SEED
from perf.pack import Lengths, lognormal_lengths
from tulu_pipeline.artifacts.source import Builtin
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.models import tiny
from tulu_pipeline.profile import Layout, Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.encode import Encoded
from tulu_pipeline.tokens.shards import TokenWriter
from tulu_pipeline.training.launch import finetune
from tulu_pipeline.training.order import step_order
from tulu_pipeline.training.plans import padded_plan, plan_statistics, step_plan
from tulu_pipeline.training.record import read_steps
from tulu_pipeline.training.steps import row_budget_tokens

LAYOUTS: tuple[Layout, ...] = ("padded", "step")


def write_tokens(folder: Path, lengths: Lengths, entries: int) -> None:
    """Conversations of these lengths, of ids drawn at random."""
    generator = np.random.default_rng(SEED)
    with TokenWriter(folder, np.uint16, {}) as writer:
        for number, length in enumerate(lengths.tolist()):
            mask = np.zeros(length, dtype=np.uint8)
            mask[length // 2 :] = 1
            ids = generator.integers(4, entries, length).astype(np.uint16)
            writer.write(str(number), Encoded(ids, mask, truncated=False))


def speeds(folder: Path, model: Path, tokens: Path, recipe: Recipe, profile: Profile) -> dict[str, float]:
    """Medians over all steps but the first."""
    finetune(
        name=f"finetune[{profile.layout}]",
        recipe=recipe,
        tokens=[(tokens, 1)],
        model=model,
        out=folder / "out",
        aux=folder / "aux",
        work=folder / "work",
        ctx=RunContext(profile=profile, settings=read_settings()),
    )
    steps = list(read_steps(folder / "work" / "steps.jsonl"))[1:]
    return {
        "tokens_per_second": round(statistics.median(step.tokens / step.seconds for step in steps)),
        "supervised_tokens_per_second": round(
            statistics.median(step.supervised_tokens / step.seconds for step in steps)
        ),
        "padding_share": round(statistics.mean(step.padding_share for step in steps), 4),
    }


def ideal_ratio(lengths: Lengths, recipe: Recipe, profile: Profile) -> float:
    """How much faster `step` is where time is what the slowest rank of each pass computes."""
    orders = [
        step_order(len(lengths), recipe.conversations_per_step, recipe.seed, step)
        for step in range(1, recipe.max_steps or 1)
    ]
    ranks, per_row = profile.ranks, profile.micro_batch_conversations
    padded = plan_statistics(
        (padded_plan(each, ranks=ranks, conversations_per_row=per_row) for each in orders), lengths
    )
    budget = row_budget_tokens(recipe, profile)
    step = plan_statistics((step_plan(each, lengths, ranks=ranks, budget_tokens=budget) for each in orders), lengths)
    return step.busy_share / padded.busy_share


def main() -> None:
    """Measure both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=[model.name for model in tiny.FAMILY.models], default="tiny")
    parser.add_argument("--steps", type=int, default=6, help="of each training")
    parser.add_argument("--ranks", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--per-row", type=int, default=4, help="conversations of a padded micro-batch")
    parser.add_argument("--row-tokens", type=int, default=4096, help="tokens of a row of the layout `step`")
    options = parser.parse_args()
    source = next(model for model in tiny.FAMILY.models if model.name == options.model).sources["model"]
    assert isinstance(source, Builtin), source
    arguments: dict[str, Any] = dict(source.args)
    recipe = Recipe(max_steps=options.steps, dtype="fp32")
    lengths = lognormal_lengths(options.steps * recipe.conversations_per_step)
    profile = Profile(
        ranks=options.ranks,
        micro_batch_conversations=options.per_row,
        row_tokens=options.row_tokens,
        checkpoint_every_steps=0,
    )
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        tiny.write_model(home / "model", **arguments)
        (home / "tokens").mkdir()
        write_tokens(home / "tokens", lengths, arguments["vocabulary"])
        for layout in LAYOUTS:
            in_layout = replace(profile, layout=layout)
            found[layout] = speeds(home / layout, home / "model", home / "tokens", recipe, in_layout)
    ratio = found["step"]["tokens_per_second"] / found["padded"]["tokens_per_second"]
    ideal = ideal_ratio(lengths, recipe, profile)
    result = {
        "model": options.model,
        "steps": options.steps,
        "ranks": options.ranks,
        "conversations_per_step": recipe.conversations_per_step,
        "mean_tokens": round(float(lengths.mean()), 1),
        "per_row": options.per_row,
        "row_tokens": options.row_tokens,
        **found,
        "ratio_vs_padded": round(ratio, 2),
        "ideal_ratio": round(ideal, 2),
        "share_of_ideal": round(ratio / ideal, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
