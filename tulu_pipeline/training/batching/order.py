"""Which conversations a step trains on: a pure function of (seed, epoch, step), whatever the ranks or restarts.

Every epoch visits each conversation `repeat` times, in an order drawn from (seed, epoch). The last step of an epoch
takes what is left, so it may be short, as in the original's loop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.recipe import Recipe

Indices = npt.NDArray[np.int64]

_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64's increment
_MASK = (1 << 64) - 1
_HELD_OUT = 0x68656C64206F7574  # "held out": other numbers than an order with the same seed has


def epoch_conversations(rows: Sequence[int], repeats: Sequence[int]) -> int:
    """Conversations seen in one epoch of components with `rows` rows, each seen `repeats` times."""
    return sum(count * repeat for count, repeat in zip(rows, repeats, strict=True))


def epoch_steps(units: int, per_step: int) -> int:
    """Optimizer steps of an epoch over `units` conversations (or rows), of which a step takes `per_step`.

    Raises:
        BadInput: there is nothing to train on.
    """
    if units < 1:
        raise BadInput("there is no conversation to train on", "tokens", "see what tokenize dropped, and why")
    return math.ceil(units / per_step)


def total_steps(steps_per_epoch: int, recipe: Recipe) -> int:
    """Optimizer steps of the whole training."""
    # As it was written: the float nearest to 1.1 is a little more, and would make 111 of 100 steps.
    steps = math.ceil(Fraction(str(recipe.epochs)) * steps_per_epoch)
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def step_order(conversations: int, per_step: int, seed: int, step: int) -> Indices:
    """Positions (0 to `conversations` - 1) that step `step`, counted from 0, trains on, in order."""
    epoch, within = divmod(step, epoch_steps(conversations, per_step))
    return epoch_order(conversations, seed, epoch)[within * per_step : (within + 1) * per_step]


@lru_cache(maxsize=2)
def epoch_order(conversations: int, seed: int, epoch: int) -> Indices:
    """A permutation of all positions, drawn from (seed, epoch).

    Positions are sorted by a hash (SplitMix64) of (seed, epoch, position): unlike a library's shuffle it can never
    change with the library's version, so an interrupted training goes on in the same order after an upgrade.
    """
    order = np.argsort(_hashes(_mix(seed & _MASK) ^ (epoch & _MASK), conversations), kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def draw_rows(rows: Sequence[int], seed: int, count: int) -> list[Indices]:
    """`count` rows of components with `rows` rows, drawn from (seed, component, row): of each component, ascending.

    Those with the lowest hashes are drawn, so more of them include fewer of them.
    """
    if not count:
        return [np.empty(0, dtype=np.int64) for _ in rows]
    hashes = [
        _hashes(_mix(_mix(_HELD_OUT ^ (seed & _MASK)) ^ component), number) for component, number in enumerate(rows)
    ]
    lowest = np.argsort(np.concatenate(hashes), kind="stable")[:count]
    starts = np.cumsum([0, *rows])
    return [
        np.sort(lowest[(start <= lowest) & (lowest < end)] - start).astype(np.int64) for start, end in pairwise(starts)
    ]


def locate(position: int, rows: Sequence[int], repeats: Sequence[int]) -> tuple[int, int]:
    """(component, row) of a position: components one after the other, each `repeat` times over."""
    for component, (count, repeat) in enumerate(zip(rows, repeats, strict=True)):
        if position < count * repeat:
            return component, position % count
        position -= count * repeat
    raise IndexError(position)


def _hashes(start: int, count: int) -> npt.NDArray[np.uint64]:
    """SplitMix64's first `count` numbers from the state that its output for `start` is."""
    keys = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(_mix(start))
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _mix(value: int) -> int:
    """SplitMix64's output function on one integer."""
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
