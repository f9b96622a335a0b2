"""A draw is a function of (ids, count, seed, dataset), whatever their order and their neighbors."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.chat.draw import draw, row_random

IDS = st.lists(st.text(max_size=6), unique=True, max_size=40)


@given(ids=IDS, count=st.integers(0, 50), seed=st.integers(0, 5))
def test_a_draw_takes_that_many_in_order(ids: list[str], count: int, seed: int) -> None:
    picks = draw(ids, count, seed=seed, dataset="d")
    assert picks == sorted(set(picks))
    assert len(picks) == min(count, len(ids))
    assert all(0 <= pick < len(ids) for pick in picks)


@given(ids=IDS, count=st.integers(0, 50), data=st.data())
def test_a_draw_does_not_depend_on_the_order_of_the_ids(ids: list[str], count: int, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(ids))
    one, other = draw(ids, count, seed=1, dataset="d"), draw(shuffled, count, seed=1, dataset="d")
    assert {ids[pick] for pick in one} == {shuffled[pick] for pick in other}


@given(ids=IDS, count=st.integers(1, 50), new=st.text(max_size=6))
def test_one_id_more_changes_at_most_one_pick(ids: list[str], count: int, new: str) -> None:
    more = ids if new in ids else [*ids, new]
    before = {ids[pick] for pick in draw(ids, count, seed=1, dataset="d")}
    after = {more[pick] for pick in draw(more, count, seed=1, dataset="d")}
    assert len(before - after) <= 1
    assert after - before <= {new}


def test_a_draw_is_fair_and_differs_by_seed_and_dataset() -> None:
    ids = [str(number) for number in range(30)]
    times = Counter(pick for seed in range(2000) for pick in draw(ids, 10, seed=seed, dataset="d"))
    # 2,000 draws of a third: 666.7 each, standard deviation 21; five of them to either side.
    assert all(561 < times[pick] < 772 for pick in range(30))
    assert draw(ids, 10, seed=1, dataset="d") != draw(ids, 10, seed=2, dataset="d")
    assert draw(ids, 10, seed=1, dataset="d") != draw(ids, 10, seed=1, dataset="e")


def test_a_rows_stream_follows_from_seed_dataset_and_id() -> None:
    streams = [row_random(*key).random() for key in ((1, "d", "0"), (2, "d", "0"), (1, "e", "0"), (1, "d", "1"))]
    assert len(set(streams)) == 4
    assert row_random(1, "d", "0").random() == streams[0]
    # Fields cannot run into each other.
    assert row_random(1, "a", "bc").random() != row_random(1, "ab", "c").random()
