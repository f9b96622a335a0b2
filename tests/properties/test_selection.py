"""A limit on items keeps groups even, and their order."""

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from tulu_pipeline.inference.selection import select, share
from tulu_pipeline.specs.benchmark import Item

SIZES = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 30), min_size=1)


def items(sizes: dict[str, int]) -> list[Item]:
    return [
        Item(item_id=f"{group}/{index}", prompts=("?",), group=group)
        for group, size in sizes.items()
        for index in range(size)
    ]


@given(SIZES, st.integers(1, 300))
@example({"a": 1, "b": 3, "c": 1, "d": 2}, 6)  # what small groups leave goes to all others alike
def test_a_limit_is_met_and_spread_evenly(sizes: dict[str, int], limit: int) -> None:
    kept = Counter(item.group for item in select(lambda: items(sizes), limit))
    assert dict(kept) == {group: number for group, number in share(sizes, limit).items() if number}
    assert sum(kept.values()) == min(limit, sum(sizes.values()))
    open_groups = [kept[group] for group in sizes if kept[group] < sizes[group]]
    if open_groups:
        assert max(open_groups) - min(open_groups) <= 1
        assert max(kept.values()) <= max(open_groups) + 1


@given(SIZES, st.integers(1, 300))
def test_selected_items_keep_their_order(sizes: dict[str, int], limit: int) -> None:
    everything = [item.item_id for item in items(sizes)]
    kept = [item.item_id for item in select(lambda: items(sizes), limit)]
    assert kept == [item_id for item_id in everything if item_id in set(kept)]


def test_without_a_limit_everything_is_asked() -> None:
    assert list(select(lambda: items({"a": 3}), None)) == items({"a": 3})
