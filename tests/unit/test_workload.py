"""Steps, tokens and padding told beforehand are those that training then counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.batching.plans import StepPlan
from tulu_pipeline.training.batching.steps import Steps
from tulu_pipeline.training.estimates.workload import estimated_workload, largest_pass, workload

LENGTHS = np.random.default_rng(0).integers(20, 400, 1000)


def plans(recipe: Recipe, profile: Profile) -> list[StepPlan]:
    steps = Steps(LENGTHS, recipe, profile)
    return [steps.plan(step) for step in range(steps.total)]


@pytest.mark.parametrize("layout", ["step", "padded"])
@pytest.mark.parametrize(
    "more", [{}, {"epochs": 1.4}, {"max_steps": 3}, {"conversations_per_step": 64, "batch_plan": "global"}]
)
def test_steps_conversations_and_tokens_are_those_of_the_plans(layout: Any, more: dict[str, Any]) -> None:
    recipe = Recipe(max_length_tokens=512, **more)
    profile = Profile(layout=layout, ranks=2, micro_batch_conversations=2)
    all_steps = plans(recipe, profile)
    found = workload(LENGTHS, recipe, profile, supervised_share=0.5)
    assert found.exact
    assert found.steps == len(all_steps)
    assert found.conversations == sum(len(plan.positions) for plan in all_steps)
    assert found.tokens == sum(int(plan.tokens(LENGTHS).sum()) for plan in all_steps)
    assert found.supervised_tokens == round(found.tokens / 2)
    assert max(int(plan.computed_tokens(LENGTHS).max()) for plan in all_steps) <= largest_pass(
        recipe, profile, found.longest, len(LENGTHS)
    )


@pytest.mark.parametrize("layout", ["step", "padded"])
def test_shares_of_all_steps_are_exact_and_of_a_sample_close(layout: Any) -> None:
    recipe = Recipe(max_length_tokens=512, conversations_per_step=16, epochs=3.0)
    profile = Profile(layout=layout, ranks=4, micro_batch_conversations=2)
    all_steps = plans(recipe, profile)
    computed = sum(int(plan.computed_tokens(LENGTHS).sum()) for plan in all_steps)
    found = workload(LENGTHS, recipe, profile)
    assert found.sampled_steps < found.steps == len(all_steps)
    assert found.padding_share == pytest.approx(1 - found.tokens / computed, abs=0.02)
    assert found.idle_ranks == 0


def test_ranks_that_have_nothing_to_do_are_counted() -> None:
    found = workload(LENGTHS, Recipe(conversations_per_step=4), Profile(ranks=6, layout="padded"))
    assert found.idle_ranks == 5


def test_an_estimate_has_the_steps_that_its_counts_give() -> None:
    recipe, profile = Recipe(max_length_tokens=512), Profile()
    exact = workload(LENGTHS, recipe, profile)
    found = estimated_workload(len(LENGTHS), float(LENGTHS.mean()), recipe, profile)
    assert not found.exact
    assert (found.steps, found.conversations) == (exact.steps, exact.conversations)
    assert found.tokens == pytest.approx(exact.tokens, rel=1e-6)
    assert found.padding_share is None
