"""Which conversations a rank computes together in which pass: plans of indices, in one of three layouts.

`padded`  what the original did: neighbors of the step's order share a micro-batch, padded to the longest of them.
`step`    the same conversations of the same step, laid end to end in rows without padding, spread evenly.
`global`  rows filled to the brim by best fit over the whole corpus, drawn by seed; a step is a number of rows, so it
          holds as many conversations as the others only on average.

In all three a step's conversations, and their order, follow from the lengths and the seed: ranks and passes only
decide who computes what. For `padded` and `step` they do not even depend on the lengths (`order`). All ranks
make equally many passes, since they meet in each; a cell of a plan may be empty.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tulu_pipeline.errors import BadInput
from tulu_pipeline.training.batching.order import epoch_order
from tulu_pipeline.training.batching.packing import Bins, Indices, Lengths, best_fit_bins

Layout = Literal["padded", "step", "global"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepPlan:
    """One step: what each rank computes in each pass.

    Attributes:
        positions: the step's conversations as positions in the mixture, in the order in which the loss groups them.
        rows: indices into `positions`; row `pass_ * ranks + rank` belongs to that pass of that rank.
        ranks: each has one row per pass.
        padded: whether the conversations of a row lie under each other, padded to the longest, or end to end.
    """

    positions: Indices
    rows: Bins
    ranks: int
    padded: bool

    @property
    def passes(self) -> int:
        """Forward passes of every rank."""
        return len(self.rows) // self.ranks

    def row(self, pass_: int, rank: int) -> Indices:
        """Indices into `positions` of what a rank computes in a pass, in order; may be empty."""
        return self.rows[pass_ * self.ranks + rank]

    def tokens(self, lengths: Lengths) -> Indices:
        """Tokens of each row, (passes, ranks), without padding; `lengths` are those of the whole mixture."""
        return self.rows.totals(lengths[self.positions]).reshape(self.passes, self.ranks)

    def computed_tokens(self, lengths: Lengths) -> Indices:
        """Tokens of each row, (passes, ranks), with padding."""
        if not self.padded:
            return self.tokens(lengths)
        own = lengths[self.positions]
        rows = [self.rows[row] for row in range(len(self.rows))]
        cells = [len(row) * int(own[row].max(initial=0)) for row in rows]
        return np.array(cells, dtype=np.int64).reshape(self.passes, self.ranks)


def padded_plan(positions: Indices, *, ranks: int, conversations_per_row: int) -> StepPlan:
    """The original's micro-batches: neighbors in the step's order, dealt to the ranks in turn."""
    starts = np.arange(0, len(positions), conversations_per_row)
    cells = _whole_passes(len(starts), ranks)
    offsets = np.full(cells + 1, len(positions), dtype=np.int64)
    offsets[: len(starts)] = starts
    return StepPlan(positions=positions, rows=Bins(np.arange(len(positions)), offsets), ranks=ranks, padded=True)


def step_plan(
    positions: Indices, lengths: Lengths, *, ranks: int, budget_tokens: int, passes: int | None = None
) -> StepPlan:
    """The step's conversations in rows of at most `budget_tokens`, even over ranks.

    Args:
        positions: the step's conversations, in order; a row keeps that order.
        lengths: of all conversations of the mixture.
        ranks: how many share the step.
        budget_tokens: what one forward pass of a rank may hold.
        passes: make exactly so many; None takes the fewest that best fit decreasing needs.

    Raises:
        BadInput: a conversation is longer than the budget, or they do not fit into that many passes.
    """
    own = np.asarray(lengths, dtype=np.int64)[positions]
    needed = fewest_passes(own, ranks=ranks, budget_tokens=budget_tokens)
    if passes is not None and passes < needed:
        raise BadInput(
            f"a step of {int(own.sum()):,} tokens does not fit into {passes} passes of {ranks} ranks",
            f"rows of {budget_tokens:,} tokens",
            f"make {needed} passes, or raise the row's budget",
        )
    cells = (needed if passes is None else passes) * ranks
    rows = _dealt(_even_groups(own, cells, budget_tokens), own, ranks, cells)
    return StepPlan(positions=positions, rows=rows, ranks=ranks, padded=False)


def fewest_passes(lengths: Lengths, *, ranks: int, budget_tokens: int) -> int:
    """Passes that the conversations with these lengths need, by best fit decreasing; at least one."""
    return _whole_passes(len(best_fit_bins(lengths, budget_tokens)), ranks) // ranks


def global_rows(lengths: Lengths, *, budget_tokens: int, seed: int, epoch: int) -> Bins:
    """The rows of one epoch over the whole mixture, in the order in which steps take them.

    Every epoch has equally many. Which of equally long conversations goes where is drawn anew for each, so the same
    ones do not meet again; and so is the order of the rows, which best fit would leave sorted by length.

    Raises:
        BadInput: a conversation is longer than the budget.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = epoch_order(len(lengths), seed, epoch)
    bins = best_fit_bins(lengths[order], budget_tokens)
    return Bins(order[bins.items], bins.offsets).take(epoch_order(len(bins), seed, epoch))


def rows_per_step(conversations_per_step: int, conversations: int, rows: int, multiple_of: int = 1) -> int:
    """How many rows of `global` hold as many conversations, on average, as a step should; at least one.

    What a step trains on must not follow from the ranks, so neither may this; but ranks idle in a step's last pass
    where it is no multiple of them. `multiple_of` is for whoever writes the recipe with some number of ranks in mind.
    """
    return multiple_of * max(1, round(conversations_per_step * rows / conversations / multiple_of))


def global_plan(rows: Bins, lengths: Lengths, *, step: int, rows_per_step: int, ranks: int) -> StepPlan:
    """One step of an epoch, counted from 0 within it; the last may hold fewer rows.

    Args:
        rows: the epoch's, of `global_rows`.
        lengths: of all conversations of the mixture.
        step: which of the epoch's `ceil(len(rows) / rows_per_step)`.
        rows_per_step: see `rows_per_step`.
        ranks: how many share the step.
    """
    first = step * rows_per_step
    if not 0 <= first < len(rows):
        raise IndexError(f"step {step} of {-(-len(rows) // rows_per_step)}")
    mine = rows.take(np.arange(first, min(first + rows_per_step, len(rows))))
    within = Bins(np.arange(len(mine.items)), mine.offsets)
    own = np.asarray(lengths, dtype=np.int64)[mine.items]
    dealt = _dealt([within[row] for row in range(len(within))], own, ranks, _whole_passes(len(within), ranks))
    return StepPlan(positions=mine.items, rows=dealt, ranks=ranks, padded=False)


def row_boundaries(lengths: Lengths) -> npt.NDArray[np.int32]:
    """Where each conversation of an end-to-end row begins, and the row's end: `cu_seqlens` of attention kernels."""
    boundaries = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=boundaries[1:])
    return boundaries


def position_ids(lengths: Lengths) -> npt.NDArray[np.int64]:
    """Each token's place in its own conversation, for an end-to-end row."""
    boundaries = row_boundaries(lengths)
    return np.arange(boundaries[-1], dtype=np.int64) - np.repeat(boundaries[:-1], lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStatistics:
    """What plans make of the machine.

    Attributes:
        steps, conversations, tokens: planned.
        computed_tokens: with padding.
        useful_share: tokens of those computed.
        busy_share: tokens of those that could be computed while the slowest rank of each pass computes its own.
        passes_mean: per step.
        rank_imbalance: computed tokens of the fullest rank of a step over the mean of its ranks, mean over steps.
    """

    steps: int
    conversations: int
    tokens: int
    computed_tokens: int
    useful_share: float
    busy_share: float
    passes_mean: float
    rank_imbalance: float


def plan_statistics(plans: Iterable[StepPlan], lengths: Lengths) -> PlanStatistics:
    """Sums over the plans of any number of steps, at least one."""
    lengths = np.asarray(lengths, dtype=np.int64)
    steps = conversations = tokens = computed = slowest = passes = 0
    imbalance = 0.0
    for plan in plans:
        cells = plan.computed_tokens(lengths)
        steps += 1
        conversations += len(plan.positions)
        tokens += int(lengths[plan.positions].sum())
        computed += int(cells.sum())
        slowest += int(cells.max(axis=1).sum()) * plan.ranks
        passes += plan.passes
        imbalance += float(cells.sum(axis=0).max() / cells.sum(axis=0).mean())
    return PlanStatistics(
        steps=steps,
        conversations=conversations,
        tokens=tokens,
        computed_tokens=computed,
        useful_share=tokens / computed,
        busy_share=tokens / slowest,
        passes_mean=passes / steps,
        rank_imbalance=imbalance / steps,
    )


def _whole_passes(rows: int, ranks: int) -> int:
    """Cells of a plan that hold `rows` rows."""
    return max(1, -(-rows // ranks)) * ranks


def _even_groups(lengths: Indices, groups: int, budget_tokens: int) -> list[Indices]:
    """At most `groups` groups within the budget, which best fit decreasing can make; the largest is small.

    The longest goes first, each into the emptiest group. Where that ends above the budget, as it can when there is
    hardly any room, best fit decreasing at the smallest budget at which it needs no more groups.
    """
    group_of = _emptiest_first(lengths, groups)
    if np.bincount(group_of, weights=lengths, minlength=1).max() <= budget_tokens:
        order = np.argsort(group_of, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(group_of[order])) + 1)
    low, high = max(int(lengths.max()), -(-int(lengths.sum()) // groups)), budget_tokens
    while low < high:
        middle = (low + high) // 2
        if len(best_fit_bins(lengths, middle)) <= groups:
            high = middle
        else:
            low = middle + 1
    bins = best_fit_bins(lengths, high)
    return [np.sort(bins[index]) for index in range(len(bins))]


def _emptiest_first(lengths: Indices, groups: int) -> Indices:
    heap = [(0, group) for group in range(groups)]
    group_of = np.zeros(len(lengths), dtype=np.int64)
    for index in np.argsort(-lengths, kind="stable").tolist():
        filled, group = heap[0]
        group_of[index] = group
        heapq.heapreplace(heap, (filled + int(lengths[index]), group))
    return group_of


def _dealt(groups: list[Indices], lengths: Indices, ranks: int, cells: int) -> Bins:
    """Groups as the rows of a plan: groups of like size meet in a pass, and the ranks get the fullest in turn."""
    fullest_first = sorted(range(len(groups)), key=lambda group: (-int(lengths[groups[group]].sum()), group))
    rows: list[Indices] = [np.zeros(0, dtype=np.int64)] * cells
    for place, group in enumerate(fullest_first):
        pass_, rank = divmod(place, ranks)
        rows[pass_ * ranks + (rank if pass_ % 2 == 0 else ranks - 1 - rank)] = groups[group]
    sizes = [len(row) for row in rows]
    return Bins(np.concatenate(rows), np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))
