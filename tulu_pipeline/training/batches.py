"""A step's conversations as padded micro-batches, with a weight per token that says what the loss is.

The loss of a step is the sum over its tokens of weight times negative log likelihood. The weights are fixed by the
order of the conversations alone; how they are laid out over ranks and forward passes changes nothing but rounding.
So the layout is free: conversations of like length share a micro-batch.

Shapes: B conversations of a micro-batch, T tokens, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.recipe import LossNorm

Tokens = tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]  # ids_T, loss mask_T


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward pass of one rank.

    Attributes:
        input_ids: BT, int64; the pad id on the right.
        attention_mask: BT, int64; 1 where there is a token.
        weights: BT, float32; the weight in the loss of *predicting* this token; 0 for the first and for padding.
    """

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """What a step holds, over all ranks.

    Attributes:
        conversations: trained on.
        tokens: without padding.
        supervised_tokens: that the loss is taken over.
        computed_tokens: with padding.
    """

    conversations: int
    tokens: int
    supervised_tokens: int
    computed_tokens: int


def token_weights(
    masks: Sequence[npt.NDArray[np.integer]], norm: LossNorm, virtual_conversations: int
) -> list[npt.NDArray[np.float32]]:
    """Each token's weight in the loss of a step over the conversations with these loss masks.

    `micro_mean` is what the original did: the mean over the supervised tokens of a micro-batch, then the mean over
    micro-batches, so that tokens of short answers weigh more. Its micro-batches (here *virtual*, of
    `virtual_conversations` neighbors) were also the physical ones. `token_mean` is one mean over all tokens.

    Raises:
        BadInput: a conversation has no supervised token.
    """
    counts = np.array([int(mask[1:].astype(bool).sum()) for mask in masks])
    if (counts == 0).any():
        raise BadInput(
            f"conversation {int(np.argmin(counts))} of the step has no supervised token",
            "tokens",
            "tokenize drops such conversations; make the tokens again",
        )
    if norm == "token_mean":
        shares = np.full(len(masks), 1.0 / counts.sum())
    else:
        starts = np.arange(0, len(masks), virtual_conversations)
        per_virtual = np.add.reduceat(counts, starts)
        shares = np.repeat(1.0 / (len(starts) * per_virtual), np.diff([*starts, len(masks)]))
    weights = []
    for mask, share in zip(masks, shares, strict=True):
        weight = (mask != 0).astype(np.float32) * np.float32(share)
        weight[0] = 0.0
        weights.append(weight)
    return weights


def layout(lengths: Sequence[int], ranks: int, passes: int) -> list[list[list[int]]]:
    """Which conversations go where: `[pass][rank]` is a list of positions, empty where there are too few.

    Conversations of like length go together, and the largest padded micro-batch is as small as it can be, so little
    is padding, no rank waits long for another, and none needs more memory than equal shares of the longest would.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    low, high = max(lengths), sum(lengths) + len(lengths) * max(lengths)
    while low < high:  # smallest budget of padded tokens with which `ranks * passes` groups are enough
        budget = (low + high) // 2
        if len(_groups(by_length, lengths, budget)) <= ranks * passes:
            high = budget
        else:
            low = budget + 1
    groups = _groups(by_length, lengths, low)
    groups += [[] for _ in range(ranks * passes - len(groups))]
    return [groups[start : start + ranks] for start in range(0, ranks * passes, ranks)]


def _groups(by_length: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Neighbors in `by_length`, longest first, as many together as the budget of padded tokens allows."""
    groups: list[list[int]] = []
    for index in by_length:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def step_batches(
    conversations: Sequence[Tokens],
    *,
    rank: int,
    ranks: int,
    passes: int,
    norm: LossNorm,
    virtual_conversations: int,
    pad_id: int,
) -> tuple[list[MicroBatch], StepCounts]:
    """The micro-batches of one rank for one step, always `passes` of them, and the counts over all ranks.

    Every rank must make as many forward passes as the others (they meet in each). Where a short step has too few
    conversations a pass is one pad token of weight 0.
    """
    weights = token_weights([mask for _, mask in conversations], norm, virtual_conversations)
    lengths = [len(ids) for ids, _ in conversations]
    plan = layout(lengths, ranks, passes)
    batches = [
        _padded([conversations[i][0] for i in groups[rank]], [weights[i] for i in groups[rank]], pad_id)
        for groups in plan
    ]
    counts = StepCounts(
        conversations=len(conversations),
        tokens=sum(lengths),
        supervised_tokens=sum(int((weight > 0).sum()) for weight in weights),
        computed_tokens=sum(
            len(group) * max(lengths[i] for i in group) for groups in plan for group in groups if group
        ),
    )
    return batches, counts


def _padded(
    rows: Sequence[npt.NDArray[np.integer]], weights: Sequence[npt.NDArray[np.float32]], pad_id: int
) -> MicroBatch:
    longest = max((len(row) for row in rows), default=2)
    shape = (max(1, len(rows)), longest)
    input_ids_BT = np.full(shape, pad_id, dtype=np.int64)
    attention_mask_BT = np.zeros(shape, dtype=np.int64)
    weights_BT = np.zeros(shape, dtype=np.float32)
    for index, (row, weight) in enumerate(zip(rows, weights, strict=True)):
        input_ids_BT[index, : len(row)] = row
        attention_mask_BT[index, : len(row)] = 1
        weights_BT[index, : len(row)] = weight
    if not rows:
        attention_mask_BT[:] = 1
    return MicroBatch(input_ids=input_ids_BT, attention_mask=attention_mask_BT, weights=weights_BT)
