"""Randomness that belongs to the row: it follows from (seed, dataset, row id) alone, never from other rows."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from tulu_pipeline.artifacts.canonical import canonical_json


def row_random(seed: int, dataset: str, row_id: str) -> random.Random:
    """The random stream of one row."""
    return random.Random(int.from_bytes(digest("row", seed, dataset, row_id)))


class RowStreams:
    """The random streams of a dataset's rows, one after the other, at little cost.

    Each is the stream that `row_random` gives. To seed Python's generator takes longer than all else a plain row
    needs, so it is seeded when it is first asked, which most converters never do.
    """

    def __init__(self, seed: int, dataset: str) -> None:
        self._seed, self._dataset = seed, dataset
        self._generator = _SeededWhenAsked()

    def of(self, row_id: str) -> random.Random:
        """The stream of one row, until the next is asked for."""
        self._generator.begin(digest("row", self._seed, self._dataset, row_id))
        return self._generator


class _SeededWhenAsked(random.Random):
    """`random.Random(int.from_bytes(digest))` after `begin(digest)`."""

    _waiting: bytes | None = None

    def begin(self, digest: bytes) -> None:
        self._waiting = digest
        self.gauss_next = None

    def _settle(self) -> None:
        if self._waiting is not None:
            self.seed(int.from_bytes(self._waiting))

    def random(self) -> float:
        self._settle()
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        self._settle()
        return super().getrandbits(k)

    def getstate(self) -> tuple[Any, ...]:
        self._settle()
        return super().getstate()

    def setstate(self, state: tuple[Any, ...]) -> None:
        self._waiting = None
        super().setstate(state)

    def seed(self, a: Any = None, version: int = 2) -> None:
        self._waiting = None
        super().seed(a, version)


def draw(ids: Iterable[str], count: int, *, seed: int, dataset: str) -> list[int]:
    """Positions of `count` of `ids`, drawn without replacement, in ascending order; all of them where there are fewer.

    The draw takes the smallest hashes, so it is uniform, does not depend on the order of the ids, and one id more or
    less changes at most one pick.
    """
    hashes = ((digest("draw", seed, dataset, row_id), index) for index, row_id in enumerate(ids))
    return sorted(index for _, index in heapq.nsmallest(count, hashes))


def digest(purpose: str, seed: int, dataset: str, row_id: str) -> bytes:
    """The 32 bytes that a row's random choices follow from; each purpose has its own, so that none leans on another."""
    text = f"{_prefix(purpose, seed, dataset)}{canonical_json(row_id)}]"
    return hashlib.sha256(text.encode()).digest()


@lru_cache(maxsize=64)
def _prefix(purpose: str, seed: int, dataset: str) -> str:
    """What `canonical_json([purpose, seed, dataset, row_id])` begins with."""
    return canonical_json([purpose, seed, dataset])[:-1] + ","
