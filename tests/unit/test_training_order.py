import math

import numpy as np
import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.batching.order import (
    epoch_conversations,
    epoch_order,
    epoch_steps,
    locate,
    step_order,
    total_steps,
)
from tulu_pipeline.training.schedule import learning_rate, warmup_steps


def test_an_epoch_visits_every_conversation_once() -> None:
    assert sorted(epoch_order(1000, 42, 3)) == list(range(1000))


def test_the_order_is_the_same_forever() -> None:
    assert epoch_order(12, 42, 0).tolist() == [6, 2, 5, 11, 7, 0, 9, 4, 3, 10, 8, 1]


@pytest.mark.parametrize("other", [(42, 1), (43, 0), (0, 42)])
def test_epochs_and_seeds_have_orders_of_their_own(other: tuple[int, int]) -> None:
    assert epoch_order(1000, 42, 0).tolist() != epoch_order(1000, *other).tolist()


def test_every_position_is_equally_likely_to_hold_any_conversation() -> None:
    first = np.array([epoch_order(10, seed, 0)[0] for seed in range(2000)])
    counts = np.bincount(first, minlength=10)
    assert (abs(counts - 200) < 5 * math.sqrt(200 * 0.9)).all()


def test_steps_cut_the_epochs_and_the_last_of_an_epoch_is_short() -> None:
    steps = [step_order(10, 4, 42, step).tolist() for step in range(6)]
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]
    assert [*steps[0], *steps[1], *steps[2]] == epoch_order(10, 42, 0).tolist()
    assert [*steps[3], *steps[4], *steps[5]] == epoch_order(10, 42, 1).tolist()


def test_components_are_repeated_one_after_the_other() -> None:
    rows, repeats = (2, 3), (2, 1)
    places = [locate(position, rows, repeats) for position in range(epoch_conversations(rows, repeats))]
    assert places == [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    with pytest.raises(IndexError):
        locate(7, rows, repeats)


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        (Recipe(), 2 * 4),
        (Recipe(epochs=0.5), 2),
        (Recipe(epochs=0.6), 3),
        (Recipe(max_steps=5), 5),
        (Recipe(max_steps=100), 8),
    ],
)
def test_steps_follow_from_epochs_unless_fewer_are_asked_for(recipe: Recipe, steps: int) -> None:
    assert total_steps(epoch_steps(500, recipe.conversations_per_step), recipe) == steps


def test_a_tenth_of_an_epoch_is_no_step_too_many() -> None:
    assert [total_steps(100, Recipe(epochs=epochs)) for epochs in (1.1, 2.3, 0.07, 1e-05)] == [110, 230, 7, 1]


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(BadInput, match="no conversation"):
        epoch_steps(0, 128)


def test_the_rate_warms_up_from_zero_and_decays_to_its_final_share() -> None:
    recipe = Recipe(learning_rate=1e-3, warmup_steps=10, final_learning_rate_share=0.1)
    rates = [learning_rate(recipe, step, 110) for step in range(110)]
    assert rates[0] == 0.0
    assert rates[10] == max(rates) == 1e-3
    assert rates[5] == pytest.approx(5e-4)
    assert rates[60] == pytest.approx(1e-3 * (0.1 + 0.9 * 0.5))
    assert rates[-1] == pytest.approx(1e-3 * (0.1 + 0.9 * 0.01))


def test_the_warmup_ratio_rounds_down_and_steps_win_over_it() -> None:
    assert warmup_steps(Recipe(), 199) == 5
    assert warmup_steps(Recipe(warmup_steps=7), 199) == 7
    assert learning_rate(Recipe(warmup_ratio=0.0), 0, 3) == 2e-5
