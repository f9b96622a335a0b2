"""What a step trains on follows from the recipe; the profile only says who computes it."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.profile import Layout, Profile
from tulu_pipeline.specs.recipe import BatchPlan, Recipe
from tulu_pipeline.training.batching.steps import Steps

LENGTHS = np.random.default_rng(1).integers(5, 65, 300)
RECIPE = Recipe(conversations_per_step=12, max_length_tokens=64, epochs=2.0)
PLANS: tuple[BatchPlan, ...] = ("conversation", "global")
LAYOUTS: tuple[Layout, ...] = ("step", "padded")


def positions(recipe: Recipe, profile: Profile) -> list[list[int]]:
    steps = Steps(LENGTHS, recipe, profile)
    return [steps.plan(step).positions.tolist() for step in range(steps.total)]


@pytest.mark.parametrize("batch_plan", PLANS)
def test_a_step_holds_the_same_conversations_whatever_the_profile(batch_plan: BatchPlan) -> None:
    recipe = replace(RECIPE, batch_plan=batch_plan)
    wanted = positions(recipe, Profile())
    for ranks, nodes, layout, row_tokens in product((1, 3), (1, 2), LAYOUTS, (0, 200)):
        assert positions(recipe, Profile(ranks=ranks, nodes=nodes, layout=layout, row_tokens=row_tokens)) == wanted


@pytest.mark.parametrize(("batch_plan", "layout"), list(product(PLANS, LAYOUTS)))
def test_every_epoch_sees_each_conversation_once_and_all_ranks_of_all_nodes_take_part(
    batch_plan: BatchPlan, layout: Layout
) -> None:
    steps = Steps(LENGTHS, replace(RECIPE, batch_plan=batch_plan), Profile(ranks=2, nodes=2, layout=layout))
    assert steps.total == 2 * steps.per_epoch
    for epoch in range(2):
        plans = [steps.plan(step) for step in range(epoch * steps.per_epoch, (epoch + 1) * steps.per_epoch)]
        assert sorted(np.concatenate([plan.positions for plan in plans])) == list(range(len(LENGTHS)))
        assert all(plan.ranks == 4 for plan in plans)


def test_a_step_of_the_global_plan_is_so_many_full_rows() -> None:
    recipe = replace(RECIPE, batch_plan="global")
    steps = Steps(LENGTHS, recipe, Profile(ranks=1))
    plans = [steps.plan(step) for step in range(steps.per_epoch)]
    assert {plan.passes for plan in plans[:-1]} == {7}  # 12 conversations of 34.5 tokens on average, in rows of 64
    assert sum(int(plan.tokens(LENGTHS).sum()) for plan in plans) > 0.96 * 64 * sum(plan.passes for plan in plans)
    assert np.mean([len(plan.positions) for plan in plans]) == pytest.approx(12, rel=0.1)
    assert len({len(plan.positions) for plan in plans}) > 1
    assert Steps(LENGTHS, replace(recipe, rows_per_step=3), Profile(ranks=1)).plan(5).passes == 3


@pytest.mark.parametrize("batch_plan", PLANS)
def test_steps_of_nothing_are_an_error(batch_plan: BatchPlan) -> None:
    with pytest.raises(BadInput, match="no conversation"):
        Steps(np.zeros(0, dtype=np.int64), replace(RECIPE, batch_plan=batch_plan), Profile())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows_per_step": 4}, "rows_per_step says nothing"),
        ({"batch_plan": "global", "rows_per_step": 0}, "rows_per_step is 0"),
        ({"batch_plan": "packed"}, "batch_plan is 'packed'"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Recipe(**changes)  # type: ignore[arg-type]
