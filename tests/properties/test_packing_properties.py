"""Plans lose nothing, keep to their budget, and say the same whatever the ranks."""

import bisect
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.errors import BadInput
from tulu_pipeline.training.batching.order import epoch_order, step_order
from tulu_pipeline.training.batching.packing import Bins, best_fit_bins
from tulu_pipeline.training.batching.plans import (
    StepPlan,
    fewest_passes,
    global_plan,
    global_rows,
    padded_plan,
    plan_statistics,
    position_ids,
    row_boundaries,
    rows_per_step,
    step_plan,
)


@st.composite
def lengths_and_budget(draw: st.DrawFn, most: int = 80) -> tuple[np.ndarray, int]:
    budget = draw(st.integers(1, 60))
    lengths = draw(st.lists(st.integers(1, budget), min_size=1, max_size=most))
    return np.array(lengths, dtype=draw(st.sampled_from([np.int64, np.int32, np.uint16]))), budget


def one_by_one(lengths: np.ndarray, budget: int) -> list[int]:
    """Free space of each bin after best fit decreasing by the book: one item at a time, over all bins."""
    spaces: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        at = bisect.bisect_left(spaces, length)
        space = spaces.pop(at) if at < len(spaces) else budget
        bisect.insort(spaces, space - length)
    return spaces


@given(lengths_and_budget())
def test_bins_in_bulk_are_as_full_as_those_of_best_fit_decreasing_one_by_one(case: tuple[np.ndarray, int]) -> None:
    lengths, budget = case
    bins = best_fit_bins(lengths, budget)
    assert sorted((budget - bins.totals(lengths)).tolist()) == one_by_one(lengths, budget)


@given(lengths_and_budget())
def test_every_item_is_in_one_bin_and_no_bin_above_the_budget(case: tuple[np.ndarray, int]) -> None:
    lengths, budget = case
    bins = best_fit_bins(lengths, budget)
    assert sorted(bins.items.tolist()) == list(range(len(lengths)))
    assert all(1 <= sum(lengths[bins[index]].tolist()) <= budget for index in range(len(bins)))
    assert bins.totals(lengths).tolist() == [sum(lengths[bins[index]].tolist()) for index in range(len(bins))]


@given(lengths_and_budget())
def test_bins_come_longest_first_and_twice_alike(case: tuple[np.ndarray, int]) -> None:
    lengths, budget = case
    one, other = best_fit_bins(lengths, budget), best_fit_bins(lengths.copy(), budget)
    assert one.items.tolist() == other.items.tolist()
    assert one.offsets.tolist() == other.offsets.tolist()
    longest = [int(lengths[one[index][0]]) for index in range(len(one))]
    assert longest == sorted(longest, reverse=True)
    for index in range(len(one)):
        keys = [(-int(lengths[item]), int(item)) for item in one[index]]
        assert keys == sorted(keys)


def test_no_items_need_no_bins() -> None:
    assert len(best_fit_bins(np.array([], dtype=np.int64), 10)) == 0


@pytest.mark.parametrize(
    ("lengths", "what", "fix"),
    [
        ([3, 11, 12], "conversation 1 has 11 tokens, more than the 10", "raise the row's budget to 12"),
        ([3, 0], "conversation 1 has no token", "make the tokens again"),
    ],
)
def test_what_fits_no_bin_is_an_error_that_says_what_would(lengths: list[int], what: str, fix: str) -> None:
    for plan in (
        lambda: best_fit_bins(np.array(lengths), 10),
        lambda: step_plan(np.arange(len(lengths)), np.array(lengths), ranks=1, budget_tokens=10),
        lambda: global_rows(np.array(lengths), budget_tokens=10, seed=1, epoch=0),
    ):
        with pytest.raises(BadInput) as caught:
            plan()
        assert fix in caught.value.fix
    with pytest.raises(BadInput, match=what):
        best_fit_bins(np.array(lengths), 10)


@given(lengths_and_budget(), st.integers(1, 5), st.integers(0, 3))
def test_a_step_holds_exactly_its_conversations_whatever_the_ranks(
    case: tuple[np.ndarray, int], ranks: int, step: int
) -> None:
    lengths, budget = case
    per_step = 16
    step %= -(-len(lengths) // per_step)
    positions = step_order(len(lengths), per_step, 42, step)
    for plan in (
        padded_plan(positions, ranks=ranks, conversations_per_row=2),
        step_plan(positions, lengths, ranks=ranks, budget_tokens=budget),
    ):
        assert plan.positions.tolist() == positions.tolist()
        held_by_whom(plan)


@given(lengths_and_budget(), st.integers(1, 5), st.integers(0, 3))
def test_rows_of_a_step_keep_to_the_budget_and_to_the_order(
    case: tuple[np.ndarray, int], ranks: int, more: int
) -> None:
    lengths, budget = case
    positions = epoch_order(len(lengths), 7, 0)
    needed = fewest_passes(lengths, ranks=ranks, budget_tokens=budget)
    assert needed == max(1, -(-len(one_by_one(lengths, budget)) // ranks))
    for passes in (None, needed + more):
        plan = step_plan(positions, lengths, ranks=ranks, budget_tokens=budget, passes=passes)
        assert plan.passes == (needed if passes is None else passes)
        assert plan.tokens(lengths).max() <= budget
        assert plan.computed_tokens(lengths).sum() == lengths.sum()
        for pass_ in range(plan.passes):
            for rank in range(ranks):
                assert (np.diff(plan.row(pass_, rank)) > 0).all()
    if needed > 1:
        with pytest.raises(BadInput, match=f"does not fit into {needed - 1} passes"):
            step_plan(positions, lengths, ranks=ranks, budget_tokens=budget, passes=needed - 1)


@given(lengths_and_budget(), st.integers(1, 4))
def test_a_pass_waits_for_no_rank_longer_than_for_the_longest_conversation(
    case: tuple[np.ndarray, int], ranks: int
) -> None:
    """Emptiest-first never lets two groups differ by more; passes of like rows cannot be worse."""
    lengths, budget = case
    roomy = int(lengths.sum()) + budget  # then nothing has to be squeezed in
    plan = step_plan(np.arange(len(lengths)), lengths, ranks=ranks, budget_tokens=roomy)
    cells = plan.tokens(lengths)
    assert plan.passes == 1
    assert cells.max() - cells.min() <= lengths.max()


@given(lengths_and_budget(), st.integers(0, 3), st.integers(0, 2))
def test_global_rows_hold_the_whole_epoch_and_every_epoch_has_as_many(
    case: tuple[np.ndarray, int], seed: int, epoch: int
) -> None:
    lengths, budget = case
    rows = global_rows(lengths, budget_tokens=budget, seed=seed, epoch=epoch)
    assert sorted(rows.items.tolist()) == list(range(len(lengths)))
    assert rows.totals(lengths).max() <= budget
    assert len(rows) == len(one_by_one(lengths, budget))


@given(lengths_and_budget(), st.integers(1, 5), st.integers(1, 7))
def test_steps_of_global_rows_hold_the_epoch_once_and_the_same_whatever_the_ranks(
    case: tuple[np.ndarray, int], ranks: int, size: int
) -> None:
    lengths, budget = case
    rows = global_rows(lengths, budget_tokens=budget, seed=1, epoch=0)
    seen: list[int] = []
    for step in range(-(-len(rows) // size)):
        plan = global_plan(rows, lengths, step=step, rows_per_step=size, ranks=ranks)
        alone = global_plan(rows, lengths, step=step, rows_per_step=size, ranks=1)
        assert plan.positions.tolist() == alone.positions.tolist()
        assert sorted(contents(plan)) == sorted(contents(alone))
        assert plan.tokens(lengths).max() <= budget
        held_by_whom(plan)
        seen += plan.positions.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    with pytest.raises(IndexError):
        global_plan(rows, lengths, step=-(-len(rows) // size), rows_per_step=size, ranks=ranks)


def contents(plan: StepPlan) -> list[tuple[int, ...]]:
    """What each row that is not empty holds, as positions."""
    rows = (tuple(plan.positions[plan.rows[row]].tolist()) for row in range(len(plan.rows)))
    return [row for row in rows if row]


def held_by_whom(plan: StepPlan) -> dict[int, tuple[int, int]]:
    """(pass, rank) of each of the plan's conversations; fails where one is missing or there twice."""
    held = [
        (index, (pass_, rank))
        for pass_ in range(plan.passes)
        for rank in range(plan.ranks)
        for index in plan.row(pass_, rank).tolist()
    ]
    assert sorted(index for index, _ in held) == list(range(len(plan.positions)))
    return dict(held)


def test_epochs_and_seeds_draw_other_neighbors_and_another_order() -> None:
    lengths = np.random.default_rng(0).integers(5, 40, 400)

    def neighbors(seed: int, epoch: int) -> list[tuple[int, ...]]:
        rows = global_rows(lengths, budget_tokens=64, seed=seed, epoch=epoch)
        return [tuple(rows[row].tolist()) for row in range(len(rows))]

    first = neighbors(42, 0)
    assert first == neighbors(42, 0)
    for other in (neighbors(42, 1), neighbors(43, 0)):
        assert len(other) == len(first)
        assert len(set(first) & set(other)) < len(first) / 10
    longest = [max(lengths[list(row)]) for row in first]
    assert longest != sorted(longest, reverse=True)


def test_the_padded_layout_is_the_originals() -> None:
    """Neighbors share a micro-batch; micro-batches go to the ranks in turn; the last may be short, a rank may idle."""
    positions = np.array([9, 4, 7, 1, 3, 8, 0])
    plan = padded_plan(positions, ranks=3, conversations_per_row=2)
    assert (plan.passes, plan.padded) == (2, True)
    assert [[plan.positions[plan.row(pass_, rank)].tolist() for rank in range(3)] for pass_ in range(2)] == [
        [[9, 4], [7, 1], [3, 8]],
        [[0], [], []],
    ]
    lengths = np.array([5, 10, 10, 10, 20, 10, 10, 10, 40, 10])
    assert plan.tokens(lengths).tolist() == [[30, 20, 50], [5, 0, 0]]
    assert plan.computed_tokens(lengths).tolist() == [[40, 20, 80], [5, 0, 0]]


def test_statistics_say_what_is_padding_and_what_is_waiting() -> None:
    lengths = np.array([10, 30, 20, 20])
    plan = padded_plan(np.arange(4), ranks=2, conversations_per_row=2)
    found = plan_statistics([plan, plan], lengths)
    assert (found.steps, found.conversations, found.tokens, found.computed_tokens) == (2, 8, 160, 200)
    assert found.useful_share == 160 / 200
    assert found.busy_share == 160 / 240  # in each step one rank computes 60, the other 40 and waits
    assert found.rank_imbalance == pytest.approx(60 / 50)
    assert found.passes_mean == 1.0
    packed = plan_statistics([step_plan(np.arange(4), lengths, ranks=2, budget_tokens=64)], lengths)
    assert (packed.useful_share, packed.busy_share, packed.rank_imbalance) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
def test_a_hundredth_at_most_of_what_up_to_sixteen_ranks_compute_is_lost_in_the_layout_step(ranks: int) -> None:
    """Lengths as the Tülu mixture has them: a mean of 394 tokens, cut at 2,048; 128 conversations a step."""
    drawn = np.random.default_rng(1).lognormal(5.545, 1.0, 128 * 100)
    lengths = np.clip(drawn, 1, 2048).astype(np.int64)
    assert lengths.mean() == pytest.approx(394, abs=5)
    steps = [step_order(len(lengths), 128, 42, step) for step in range(100)]
    plans = (step_plan(each, lengths, ranks=ranks, budget_tokens=4 * 2048) for each in steps)
    found = plan_statistics(plans, lengths)
    assert found.useful_share == 1.0, "nothing is padded"
    assert found.busy_share >= 0.99, "no rank waits long for the fullest of a pass"
    padded = plan_statistics((padded_plan(each, ranks=ranks, conversations_per_row=2) for each in steps), lengths)
    assert padded.busy_share < 0.7


@given(st.lists(st.integers(1, 9), max_size=8))
def test_boundaries_and_positions_of_a_row_start_anew_with_each_conversation(lengths: list[int]) -> None:
    boundaries = row_boundaries(np.array(lengths, dtype=np.int64))
    assert boundaries.dtype == np.int32
    assert boundaries.tolist() == [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    expected = [place for length in lengths for place in range(length)]
    assert position_ids(np.array(lengths, dtype=np.int64)).tolist() == expected


def test_a_step_of_global_rows_holds_as_many_conversations_on_average() -> None:
    assert rows_per_step(128, 500_000, 92_147) == 24
    assert rows_per_step(128, 500_000, 96_076) == 25
    assert rows_per_step(128, 500_000, 96_076, multiple_of=8) == 24
    assert rows_per_step(2, 1000, 10) == 1
    assert rows_per_step(2, 1000, 10, multiple_of=8) == 8


def test_squeezed_steps_stay_within_the_budget() -> None:
    """Where emptiest-first ends above the budget: 3 and 3 lie apart before the 2s come."""
    lengths = np.array([3, 3, 2, 2, 2])
    assert fewest_passes(lengths, ranks=2, budget_tokens=6) == 1
    plan = step_plan(np.arange(5), lengths, ranks=2, budget_tokens=6)
    assert plan.tokens(lengths).tolist() == [[6, 6]]
    assert Counter(contents(plan)) == Counter([(0, 1), (2, 3, 4)])


def test_bins_are_numbered_from_zero() -> None:
    bins = Bins(np.array([2, 0, 1]), np.array([0, 1, 3]))
    assert bins[1].tolist() == [0, 1]
    assert bins.take(np.array([1, 0])).items.tolist() == [0, 1, 2]
    for index in (-1, 2):
        with pytest.raises(IndexError):
            bins[index]
