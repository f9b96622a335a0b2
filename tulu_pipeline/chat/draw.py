"""Randomness that belongs to the row: it follows from (seed, dataset, row id) alone, never from other rows."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Iterable

from tulu_pipeline.artifacts.canonical import canonical_json


def row_random(seed: int, dataset: str, row_id: str) -> random.Random:
    """The random stream of one row."""
    return random.Random(int.from_bytes(digest("row", seed, dataset, row_id)))


def draw(ids: Iterable[str], count: int, *, seed: int, dataset: str) -> list[int]:
    """Positions of `count` of `ids`, drawn without replacement, in ascending order; all of them where there are fewer.

    The draw takes the smallest hashes, so it is uniform, does not depend on the order of the ids, and one id more or
    less changes at most one pick.
    """
    hashes = ((digest("draw", seed, dataset, row_id), index) for index, row_id in enumerate(ids))
    return sorted(index for _, index in heapq.nsmallest(count, hashes))


def digest(purpose: str, seed: int, dataset: str, row_id: str) -> bytes:
    """The 32 bytes that a row's random choices follow from; each purpose has its own, so that none leans on another."""
    return hashlib.sha256(canonical_json([purpose, seed, dataset, row_id]).encode("utf-8", "surrogatepass")).digest()
