"""The conversations of a mixture, read from the memory-mapped tokens of its components, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.shards import open_tokens
from tulu_pipeline.training.batching.batches import Tokens
from tulu_pipeline.training.batching.order import Indices, draw_rows, epoch_conversations, locate

T = TypeVar("T")


class MixtureTokens:
    """The tokens of a mixture's components, in order; nothing is copied or shuffled on disk.

    Args:
        components: folder of each component's tokens and how often each conversation is seen in an epoch.
        held_out: conversations of all components together that are not seen at all, in none of their repeats.
        seed: draws them.

    Attributes:
        conversations: seen in one epoch.
        lengths: tokens of each, by position.
        held_out_lengths: of the others, by their own positions.

    Raises:
        BadInput: as many are held out as there are, or more.
    """

    def __init__(self, components: Sequence[tuple[Path, int]], *, held_out: int = 0, seed: int = 0) -> None:
        self._components = [open_tokens(folder) for folder, _ in components]
        self._repeats = [repeat for _, repeat in components]
        rows = [len(component) for component in self._components]
        if held_out and held_out >= sum(rows):
            raise BadInput(
                f"{held_out:,} conversations are held out of {sum(rows):,}, so there is nothing to train on",
                "recipe.held_out_conversations",
                "hold out fewer: a hundredth of the mixture is plenty",
            )
        drawn = draw_rows(rows, seed, held_out)
        self._held_out = [(index, int(row)) for index, out in enumerate(drawn) for row in out]
        # Rows that are trained on: all where nothing is held out, so that the order is the same as ever.
        self._kept = [np.setdiff1d(np.arange(count), out) for count, out in zip(rows, drawn, strict=True)]
        self._rows = [len(kept) for kept in self._kept]
        self.conversations = epoch_conversations(self._rows, self._repeats)
        each = [component.lengths() for component in self._components]
        self.lengths: Indices = np.concatenate(
            [
                np.tile(lengths[kept], repeat)
                for lengths, kept, repeat in zip(each, self._kept, self._repeats, strict=True)
            ]
        )
        self.held_out_lengths: Indices = np.array([each[index][row] for index, row in self._held_out], dtype=np.int64)

    def at(self, positions: Indices) -> list[Tokens]:
        """The conversations at these positions, in this order."""
        places = (locate(int(position), self._rows, self._repeats) for position in positions)
        return [self._components[component][int(self._kept[component][row])] for component, row in places]

    def held_out_at(self, positions: Indices) -> list[Tokens]:
        """Of the held-out conversations, those at these positions."""
        return [
            self._components[component][row]
            for component, row in (self._held_out[each] for each in map(int, positions))
        ]


def made_ahead(make: Callable[[int], T], steps: Iterable[int]) -> Iterator[tuple[int, tuple[T, float]]]:
    """Each step, in order, with what `make` makes of it and the seconds that this was waited for.

    A thread makes the next while the caller works with this one. That is safe where `make` follows from the step
    alone, as the order does.

    Raises:
        Exception: what `make` raises, when its turn comes.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
        ahead: tuple[int, Future[T]] | None = None
        for step in steps:
            following = step, thread.submit(make, step)
            if ahead is not None:
                yield ahead[0], _waited_for(ahead[1])
            ahead = following
        if ahead is not None:
            yield ahead[0], _waited_for(ahead[1])


def _waited_for(future: Future[T]) -> tuple[T, float]:
    started = time.perf_counter()
    return future.result(), time.perf_counter() - started
