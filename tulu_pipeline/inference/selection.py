"""Which items of a benchmark are asked when not all of them are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.benchmark import Item


def select(items: Callable[[], Iterable[Item]], limit: int | None) -> Iterator[Item]:
    """At most `limit` items, spread evenly over the groups and evenly inside each, in their own order.

    `items` is called once, or twice where there is a limit: first to see how large the groups are.
    """
    if limit is None:
        yield from items()
        return
    if limit < 1:
        raise BadInput(f"item_limit is {limit}", "the experiment", "write at least 1, or leave it out")
    sizes = Counter(item.group for item in items())
    kept = share(sizes, limit)
    seen: Counter[str] = Counter()
    for item in items():
        position = seen[item.group]
        seen[item.group] += 1
        if _is_kept(position, sizes[item.group], kept[item.group]):
            yield item


def share(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """How many of each group are kept: as equal as sizes allow, one more for the first groups in alphabetical order."""
    kept: dict[str, int] = dict.fromkeys(sizes, 0)
    left = min(limit, sum(sizes.values()))
    while left:
        # Groups with items left have all been given as many so far.
        open_groups = sorted(group for group in sizes if kept[group] < sizes[group])
        each = left // len(open_groups)
        for group in open_groups if each else open_groups[:left]:
            more = min(max(each, 1), sizes[group] - kept[group])
            kept[group] += more
            left -= more
    return kept


def _is_kept(position: int, size: int, kept: int) -> bool:
    """Whether `position` is among `kept` of `size`, evenly spaced from the first on."""
    return position * kept % size < kept
