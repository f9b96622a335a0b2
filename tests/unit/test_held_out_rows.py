"""Which conversations are held out, and that what is trained on has no part of them."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.encoded import Encoded
from tulu_pipeline.tokens.shards import TokenWriter
from tulu_pipeline.training.batching.data import MixtureTokens, made_ahead
from tulu_pipeline.training.batching.order import draw_rows

Rows = st.lists(st.integers(0, 40), min_size=1, max_size=5)


def write_rows(folder: Path, first: int, rows: int) -> Path:
    """Conversations that are told apart by their first token, from `first` on; each longer than the one before."""
    folder.mkdir()
    with TokenWriter(folder, np.uint16, {}) as writer:
        for row in range(rows):
            ids = np.array([first + row, *range(3 + row)], dtype=np.uint16)
            writer.write(str(row), Encoded(ids, np.ones(len(ids), dtype=np.uint8), truncated=False))
    return folder


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("tokens")
    return [(write_rows(folder / "a", 100, 12), 1), (write_rows(folder / "b", 200, 6), 3)]


def marks(mixture: MixtureTokens) -> list[int]:
    return [int(ids[0]) for ids, _ in mixture.at(np.arange(mixture.conversations))]


@given(rows=Rows, seed=st.integers(0, 2**64 - 1), share=st.floats(0, 1))
def test_as_many_rows_are_drawn_as_asked_and_more_include_fewer(rows: list[int], seed: int, share: float) -> None:
    count = int(share * sum(rows))
    drawn = draw_rows(rows, seed, count)
    assert sum(map(len, drawn)) == count
    for number, found in zip(rows, drawn, strict=True):
        assert sorted(set(found.tolist())) == found.tolist()
        assert all(0 <= row < number for row in found)
    if count:
        for some, all_ in zip(draw_rows(rows, seed, count - 1), drawn, strict=True):
            assert set(some.tolist()) <= set(all_.tolist())


def test_the_draw_is_the_same_forever() -> None:
    assert [rows.tolist() for rows in draw_rows([12, 6], 42, 5)] == [[4, 5, 6, 9, 10], []]


def test_seeds_and_components_draw_rows_of_their_own() -> None:
    first, second = draw_rows([1000, 1000], 1, 100)
    assert set(first.tolist()) != set(second.tolist())
    assert first.tolist() != draw_rows([1000, 1000], 2, 100)[0].tolist()


def test_every_row_is_as_likely_as_any_other() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        first, second = draw_rows([15, 5], seed, 4)
        counts[first] += 1
        counts[15 + second] += 1
    assert (abs(counts - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8)).all()


def test_a_conversation_is_held_out_in_all_its_repeats(components: list[tuple[Path, int]]) -> None:
    mixture = MixtureTokens(components, held_out=9, seed=42)
    out = [int(ids[0]) for ids, _ in mixture.held_out_at(np.arange(9))]
    assert len(set(out)) == 9
    assert any(mark >= 200 for mark in out), "one of the component that is repeated"
    wanted = [mark for mark in [*range(100, 112), *(3 * [*range(200, 206)])] if mark not in out]
    assert sorted(marks(mixture)) == sorted(wanted)
    assert mixture.conversations == len(mixture.lengths) == len(wanted)


def test_lengths_stand_where_their_conversations_do(components: list[tuple[Path, int]]) -> None:
    for held_out in (0, 5, 17):
        mixture = MixtureTokens(components, held_out=held_out, seed=7)
        seen = mixture.at(np.arange(mixture.conversations))
        assert mixture.lengths.tolist() == [len(ids) for ids, _ in seen]
        out = mixture.held_out_at(np.arange(held_out))
        assert mixture.held_out_lengths.tolist() == [len(ids) for ids, _ in out]


def test_with_nothing_held_out_the_positions_are_what_they_always_were(components: list[tuple[Path, int]]) -> None:
    mixture = MixtureTokens(components)
    assert marks(mixture) == [*range(100, 112), *(3 * [*range(200, 206)])]
    assert mixture.held_out_lengths.tolist() == []


@pytest.mark.parametrize("held_out", [18, 19])
def test_holding_out_everything_is_refused_with_a_way_out(components: list[tuple[Path, int]], held_out: int) -> None:
    with pytest.raises(BadInput, match=f"{held_out} conversations are held out of 18") as caught:
        MixtureTokens(components, held_out=held_out, seed=1)
    assert "hold out fewer" in caught.value.fix


def test_the_next_step_is_made_while_this_one_is_worked_with() -> None:
    making = [threading.Event() for _ in range(3)]

    def make(step: int) -> int:
        making[step].set()
        return 10 * step

    steps = made_ahead(make, range(3))
    assert next(steps)[:1] == (0,)
    assert making[1].wait(5), "the first is worked with, and nobody makes the second"
    assert [(step, made) for step, (made, _) in steps] == [(1, 10), (2, 20)]
    assert list(made_ahead(make, range(0))) == []


def test_what_cannot_be_made_is_told_when_its_turn_comes() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise BadInput("broken", "step 2", "mend it")
        return step

    steps = made_ahead(make, range(4))
    assert [next(steps)[0], next(steps)[0]] == [0, 1]
    with pytest.raises(BadInput, match="broken"):
        next(steps)
