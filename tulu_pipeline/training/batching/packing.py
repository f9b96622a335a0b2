"""Best-fit-decreasing bins over a whole corpus, in bulk: an assignment of indices, nothing is copied.

Best fit decreasing puts the longest item first, each into the bin with the least free space that still holds it. All
items of one length are interchangeable, and so are all bins with one free space; so the loop goes over pairs of
(length, free space) and places all items of a pair at once. Bins come in runs (numbered one after the other, all with
one free space), and the free spaces that occur are the set bits of one integer: the best fit for a length is the
lowest set bit at or above it. The number of bins is exactly that of placing item by item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tulu_pipeline.errors import BadInput

Lengths = npt.NDArray[np.integer]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Groups of items: bin `i` holds `items[offsets[i]:offsets[i + 1]]`.

    Attributes:
        items: indices of the items, int64; every item once.
        offsets: int64, one more than there are bins.
    """

    items: Indices
    offsets: Indices

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Indices:
        """The items of one bin: a view."""
        if not 0 <= index < len(self):
            raise IndexError(f"bin {index} of {len(self)}")
        return self.items[self.offsets[index] : self.offsets[index + 1]]

    def take(self, chosen: Indices) -> Bins:
        """These bins, in this order."""
        sizes = np.diff(self.offsets)[chosen]
        offsets = _offsets(sizes)
        starts = np.repeat(self.offsets[chosen] - offsets[:-1], sizes)
        return Bins(self.items[starts + np.arange(offsets[-1])], offsets)

    def totals(self, lengths: Lengths) -> Indices:
        """Tokens in each bin."""
        sums = np.concatenate([[0], np.cumsum(lengths[self.items], dtype=np.int64)])
        return np.diff(sums[self.offsets])


def best_fit_bins(lengths: Lengths, budget_tokens: int) -> Bins:
    """Bins of at most `budget_tokens`, by best fit decreasing over all items at once.

    Deterministic. Bins are ordered by their longest item; in a bin the longest item comes first, and of equally long
    items the earlier.

    Raises:
        BadInput: an item is empty, or longer than the budget: nothing is cut here.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    check_lengths(lengths, budget_tokens)
    by_length = np.argsort((budget_tokens - lengths).astype(_smallest_type(budget_tokens)), kind="stable")
    counts = np.bincount(lengths, minlength=1)
    placements = np.array(_place(counts, budget_tokens), dtype=np.int64).reshape(-1, 3)
    first_bin, bins, each = placements.T
    # One row of `placements` is `bins * each` neighbors in `by_length`, `each` to a bin from `first_bin` on.
    items = bins * each
    within = np.arange(len(lengths)) - np.repeat(_offsets(items)[:-1], items)
    bin_of_item = np.repeat(first_bin, items) + within // np.repeat(each, items)
    by_bin = np.argsort(bin_of_item, kind="stable")
    return Bins(by_length[by_bin], _offsets(np.bincount(bin_of_item)))


def check_lengths(lengths: Lengths, budget_tokens: int) -> None:
    """Raises BadInput unless every length is at least 1 and at most the budget; names the first that is not."""
    wrong = np.flatnonzero((lengths < 1) | (lengths > budget_tokens))
    if not len(wrong):
        return
    first = int(wrong[0])
    if lengths[first] < 1:
        raise BadInput(f"conversation {first} has no token", "tokens", "tokenize drops such; make the tokens again")
    longest = int(lengths.max())
    raise BadInput(
        f"conversation {first} has {int(lengths[first]):,} tokens, more than the {budget_tokens:,} of a row",
        "tokens",
        f"raise the row's budget to {longest:,}, the longest there is, or lower max_length_tokens",
    )


def _place(counts: npt.NDArray[np.int64], budget_tokens: int) -> list[tuple[int, int, int]]:
    """(first bin, bins, items to each) in the order in which items, longest first, are placed.

    `runs[s]` holds the bins with free space `s` as (first, end), to be used from the end of the list; bit `s` of
    `free` is set while there are some.
    """
    placements: list[tuple[int, int, int]] = []
    runs: list[list[tuple[int, int]]] = [[] for _ in range(budget_tokens + 1)]
    free, made = 0, 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            fitting = free >> length
            if fitting:
                space = length + (fitting & -fitting).bit_length() - 1
                first, end = runs[space].pop()
            else:
                space = budget_tokens
                first, end = made, made + -(-left // (space // length))
                made = end
            # Placing one leaves the bin the best fit for the next, until no more fits: so each takes as many as it can.
            most = space // length
            bins, each = min(end - first, left // most), most
            if not bins:
                bins, each = 1, left
            placements.append((first, bins, each))
            left -= bins * each
            rest = space - each * length
            runs[rest].append((first, first + bins))
            if first + bins < end:
                runs[space].append((first + bins, end))
            if not runs[space]:
                free &= ~(1 << space)
            elif space:
                free |= 1 << space
            if rest:
                free |= 1 << rest
    return placements


def _offsets(sizes: npt.NDArray[np.integer]) -> Indices:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _smallest_type(largest: int) -> npt.DTypeLike:
    """Numpy sorts 16-bit numbers by radix."""
    return np.uint16 if largest < 2**16 else np.int64
