"""The random stream of a row is the same whichever way it is asked for, and whatever other rows asked."""

import random
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.chat.draw import RowStreams, row_random

ASK: list[Callable[[random.Random], Any]] = [
    lambda rng: rng.random(),
    lambda rng: rng.randrange(1000),
    lambda rng: rng.choice("abcdef"),
    lambda rng: rng.choices("abcdef", weights=[1, 2, 3, 4, 5, 6], k=3),
    lambda rng: rng.sample(range(100), 5),
    lambda rng: rng.gauss(0, 1),  # keeps the second of two numbers for later
    lambda rng: rng.randbytes(5),
    lambda rng: rng.getrandbits(70),
    lambda rng: rng.getstate(),
    lambda rng: rng.seed(3),
    lambda rng: rng.setstate(random.Random(5).getstate()),
]


@given(st.lists(st.tuples(st.text(max_size=5).filter(str.isprintable), st.lists(st.sampled_from(ASK), max_size=4))))
def test_streams_one_after_the_other_are_each_rows_own(rows: list[tuple[str, list[Callable[..., Any]]]]) -> None:
    streams = RowStreams(42, "d")
    for row_id, asked in rows:
        stream, own = streams.of(row_id), row_random(42, "d", row_id)
        assert [ask(stream) for ask in asked] == [ask(own) for ask in asked]


def test_a_rows_stream_is_the_same_forever() -> None:
    first = [row_random(42, "alpaca", row_id).randrange(10**6) for row_id in ("0", "ü", 'a"b')]
    assert first == [827893, 886877, 651060]
