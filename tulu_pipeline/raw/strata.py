"""Which raw rows a dataset keeps: so many of each stratum, by hash, or as the original's generator picked them."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from tulu_pipeline.chat.draw import digest
from tulu_pipeline.specs.dataset import BrokenRow, Draw, RawRow

Row = RawRow | BrokenRow


def drawn(
    read: Callable[[], Iterator[Row]],
    draw: Draw,
    *,
    seed: int,
    dataset: str,
    on_left_out: Callable[[int], None] = lambda count: None,
) -> Iterator[Row]:
    """The rows that `draw` keeps, in file order, each with the part it was chosen for; broken rows pass, uncounted.

    `hash` keeps of each stratum the rows with the smallest sha256 of (seed, dataset, row id): its first part takes the
    smallest, the next part those that follow. So the choice is uniform, needs neither an order of the rows nor a common
    generator, and a row more or less, wherever it stands, changes at most one row of each part, as long as ids do not
    follow from the place of a row. One pass; memory holds the rows kept and,
    since the last row of a file may be the smallest, none comes out before the end of the files. Broken rows do.

    `paper2023` replays the original's calls of `random.sample`, with one generator for all strata, in the order in
    which these appear in the files, none for a stratum that has no more rows than are wanted. Two passes: the first
    counts, the second picks; memory holds the numbers of the rows kept. The original wrote FLAN V2 in file order, as
    this does, and CoT in the order of the picks: the same rows, in another order.

    Args:
        read: reads the rows anew at each call.
        draw: strata, their parts, and the way of sampling.
        seed: of the hashes, or of the generator.
        dataset: the dataset's name.
        on_left_out: told once, at the end, how many whole rows were not kept.
    """
    if draw.sampling == "hash":
        kept = _by_hash(read(), draw, seed, dataset, on_left_out)
    else:
        kept = _as_in_2023(read, draw, seed, on_left_out)
    return _told_apart(kept) if draw.ids_repeat else kept


def _told_apart(rows: Iterable[Row]) -> Iterator[Row]:
    seen: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, RawRow):
            seen[row.row_id] += 1
            if seen[row.row_id] > 1:
                yield replace(row, row_id=f"{row.row_id}~{seen[row.row_id]}")
                continue
        yield row


def _by_hash(
    rows: Iterable[Row], draw: Draw, seed: int, dataset: str, on_left_out: Callable[[int], None]
) -> Iterator[Row]:
    strata: dict[str, _Smallest] = {}
    for number, row in enumerate(rows):
        if isinstance(row, BrokenRow):
            yield row
            continue
        name = draw.stratum(row)
        if name not in strata:
            strata[name] = _Smallest(draw.parts(name))
        strata[name].offer(int.from_bytes(digest("stratum", seed, dataset, row.row_id)), number, row)
    kept = [numbered for stratum in strata.values() for numbered in stratum.kept()]
    kept.sort(key=lambda numbered: numbered[0])
    yield from (row for _, row in kept)
    on_left_out(sum(stratum.offered for stratum in strata.values()) - len(kept))


class _Smallest:
    """The rows of one stratum with the smallest hashes, in a heap with the largest of these on top."""

    def __init__(self, parts: Mapping[str, int]) -> None:
        self._parts, self._count = parts, sum(parts.values())
        self._heap: list[tuple[int, int, RawRow]] = []
        self.offered = 0

    def offer(self, hashed: int, number: int, row: RawRow) -> None:
        """Keeps the row if it is among the smallest so far; of one hash, the earlier row."""
        self.offered += 1
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, (-hashed, -number, row))
        elif self._heap and (-hashed, -number) > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (-hashed, -number, row))

    def kept(self) -> Iterator[tuple[int, RawRow]]:
        """(number, row with its part) of each row kept."""
        by_hash = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        for (_, number, row), part in zip(by_hash, _in_order(self._parts), strict=False):
            yield -number, replace(row, part=part)


def _as_in_2023(
    read: Callable[[], Iterator[Row]], draw: Draw, seed: int, on_left_out: Callable[[int], None]
) -> Iterator[Row]:
    sizes = Counter(draw.stratum(row) for row in read() if isinstance(row, RawRow))
    generator = random.Random(seed)
    chosen = {name: _replayed(generator, size, draw.parts(name)) for name, size in sizes.items()}
    position: Counter[str] = Counter()
    for row in read():
        if isinstance(row, BrokenRow):
            yield row
            continue
        name = draw.stratum(row)
        part = chosen[name].get(position[name])
        position[name] += 1
        if part is not None:
            yield replace(row, part=part)
    on_left_out(sizes.total() - sum(len(parts) for parts in chosen.values()))


def _replayed(generator: random.Random, size: int, parts: Mapping[str, int]) -> dict[int, str]:
    """The part of each position that is picked; the parts are filled in the order of the picks."""
    count = sum(parts.values())
    picks = generator.sample(range(size), count) if count < size else range(size)
    return dict(zip(picks, _in_order(parts), strict=False))


def _in_order(parts: Mapping[str, int]) -> Iterator[str]:
    for part, count in parts.items():
        for _ in range(count):
            yield part
