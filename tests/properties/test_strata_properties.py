"""Which rows a dataset keeps of each stratum."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.datasets import cot
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.raw.flan import draw_of_submixes
from tulu_pipeline.raw.strata import drawn
from tulu_pipeline.specs.dataset import BrokenRow, Draw, RawRow

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**6)), unique=True, max_size=60)
PARTS = st.tuples(st.integers(0, 7), st.integers(0, 5)).map(
    lambda counts: dict(zip(("first", "second"), counts, strict=True))
)
SEEDS = st.integers(0, 3)


def rows_of(pairs: Iterable[tuple[str, int]]) -> list[RawRow]:
    return [RawRow(f"{stratum}_{number}", f"file:{number}", {"of": stratum}) for stratum, number in pairs]


def kept(
    rows: Sequence[RawRow | BrokenRow],
    parts: Mapping[str, int],
    seed: int,
    sampling: Literal["hash", "paper2023"] = "hash",
) -> list[RawRow | BrokenRow]:
    draw = Draw(stratum=lambda row: row.row_id[0], parts=lambda name: parts, sampling=sampling)
    left_out: list[int] = []
    out = list(drawn(lambda: iter(rows), draw, seed=seed, dataset="demo", on_left_out=left_out.append))
    assert left_out == [len(rows) - len(out)]
    return out


def parts_of(rows: Iterable[RawRow | BrokenRow]) -> dict[str, str]:
    return {row.row_id: row.part for row in rows if isinstance(row, RawRow)}


def oracle(rows: list[RawRow], parts: Mapping[str, int], seed: int) -> dict[str, str]:
    """The same from the definition: sort each stratum by its hashes, cut it into its parts."""
    chosen = {}
    for stratum in {row.row_id[0] for row in rows}:
        ids = [row.row_id for row in rows if row.row_id[0] == stratum]
        ids.sort(
            key=lambda row_id: hashlib.sha256(
                json.dumps(["stratum", seed, "demo", row_id], separators=(",", ":")).encode()
            ).digest()
        )
        wanted = [part for part, count in parts.items() for _ in range(count)]
        chosen.update(dict(zip(ids, wanted, strict=False)))
    return chosen


@given(ROWS, PARTS, SEEDS)
def test_each_part_takes_the_smallest_hashes_of_its_stratum_in_turn(
    pairs: list[tuple[str, int]], parts: dict[str, int], seed: int
) -> None:
    rows = rows_of(pairs)
    out = kept(rows, parts, seed)
    assert parts_of(out) == oracle(rows, parts, seed)
    ids = [row.row_id for row in rows]
    assert [row.row_id for row in out] == [row_id for row_id in ids if row_id in parts_of(out)]


@given(ROWS, PARTS, SEEDS, st.randoms(use_true_random=False))
def test_the_draw_does_not_depend_on_the_order_of_the_rows(
    pairs: list[tuple[str, int]], parts: dict[str, int], seed: int, rng: random.Random
) -> None:
    rows = rows_of(pairs)
    shuffled = rng.sample(rows, len(rows))
    assert parts_of(kept(shuffled, parts, seed)) == parts_of(kept(rows, parts, seed))


@given(ROWS, st.sampled_from("abc"), PARTS, SEEDS, st.integers(0, 60))
def test_a_row_more_changes_one_pick_of_its_stratum_and_one_row_of_each_part(
    pairs: list[tuple[str, int]], stratum: str, parts: dict[str, int], seed: int, place: int
) -> None:
    before = parts_of(kept(rows_of(pairs), parts, seed))
    after = parts_of(kept(rows_of([*pairs[:place], (stratum, 10**7), *pairs[place:]]), parts, seed))
    assert len(before.keys() - after.keys()) <= 1
    assert after.keys() - before.keys() <= {f"{stratum}_{10**7}"}
    for part in parts:
        lost = {row_id for row_id, of in before.items() if of == part and after.get(row_id) != part}
        assert len(lost) <= 1
        assert all(row_id[0] == stratum for row_id in lost)


@given(ROWS, PARTS, SEEDS, st.sampled_from(("hash", "paper2023")))
def test_broken_rows_take_no_place(
    pairs: list[tuple[str, int]], parts: dict[str, int], seed: int, sampling: Literal["hash", "paper2023"]
) -> None:
    rows = rows_of(pairs)
    broken = BrokenRow("x", "file:0", "broken JSON")
    out = kept([broken, *rows, broken], parts, seed, sampling)
    assert [row for row in out if isinstance(row, BrokenRow)] == [broken, broken]
    assert [row for row in out if isinstance(row, RawRow)] == kept(rows, parts, seed, sampling)


@given(ROWS, PARTS, SEEDS)
def test_paper2023_picks_what_the_original_scripts_pick(
    pairs: list[tuple[str, int]], parts: dict[str, int], seed: int
) -> None:
    rows, wanted = rows_of(pairs), sum(parts.values())
    random.seed(seed)  # as the scripts do, once, for the process
    expected = {}
    for stratum in dict.fromkeys(row.row_id[0] for row in rows):
        whole = [row.row_id for row in rows if row.row_id[0] == stratum]
        picked = random.sample(whole, k=wanted) if wanted < len(whole) else whole
        for place, row_id in enumerate(picked):
            expected[row_id] = "first" if place < parts["first"] else "second"
    assert parts_of(kept(rows, parts, seed, "paper2023")) == expected


@given(
    st.lists(st.integers(0, 20), max_size=40), st.integers(0, 20), st.integers(0, 40), st.randoms(use_true_random=False)
)
def test_a_row_more_of_a_submix_wherever_it_stands_changes_one_pick(
    numbers: list[int], more: int, place: int, rng: random.Random
) -> None:
    eight = replace(cot.DATASET, draw=draw_of_submixes(lambda submix: 8))

    def picks(of: list[int]) -> Counter[str]:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "zsopt.jsonl"
            lines = (json.dumps({"inputs": f"Say {number}:", "targets": f"{number}"}) for number in of)
            file.write_text("".join(f"{line}\n" for line in lines))
            rows = list(convert_rows(eight, {file.name: file}, 42))
        return Counter(row.messages[1].content for row in rows if isinstance(row, Conversation))

    before = picks(numbers)
    assert before.total() == min(8, len(numbers))
    assert picks(rng.sample(numbers, len(numbers))) == before
    after = picks([*numbers[:place], more, *numbers[place:]])
    assert (before - after).total() <= 1
    assert (after - before).total() <= 1
