"""A step's conversations as micro-batches, with a weight per token that says what the loss is.

The loss of a step is the sum over its tokens of weight times negative log likelihood. The weights are fixed by the
order of the conversations alone; how they are laid out over ranks and forward passes (`plans`) changes nothing but
rounding.

Shapes: B rows of a micro-batch, T tokens. A row is one conversation, padded on the right; or B is 1 and the row holds
several, end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.recipe import LossNorm
from tulu_pipeline.training.batching.packing import Lengths
from tulu_pipeline.training.batching.plans import StepPlan, row_boundaries

Tokens = tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]  # ids_T, loss mask_T


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward pass of one rank.

    Attributes:
        input_ids: BT, int64; the pad id on the right.
        weights: BT, float32; the weight in the loss of *predicting* this token; 0 for the first of a conversation
            and for padding.
        attention_mask: BT, int64; 1 where there is a token. None of an end-to-end row.
        boundaries: of an end-to-end row: int32, where each conversation begins, and the end. Else None.
    """

    input_ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    attention_mask: npt.NDArray[np.int64] | None
    boundaries: npt.NDArray[np.int32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """What a step holds, over all ranks.

    Attributes:
        conversations: trained on.
        tokens: without padding.
        supervised_tokens: that the loss is taken over.
        computed_tokens: with padding.
        lockstep_tokens: what the ranks would compute if each had as much in a pass as the fullest, for whom they wait.
    """

    conversations: int
    tokens: int
    supervised_tokens: int
    computed_tokens: int
    lockstep_tokens: int


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


def step_batches(
    conversations: Sequence[Tokens],
    plan: StepPlan,
    lengths: Lengths,
    *,
    rank: int,
    norm: LossNorm,
    virtual_conversations: int,
    pad_id: int,
) -> tuple[list[MicroBatch], StepCounts]:
    """The micro-batches of one rank for one step, one for each pass of the plan, and the counts over all ranks.

    Where the plan has nothing for the rank in a pass, the micro-batch is two pad tokens of weight 0.

    Args:
        conversations: at the plan's positions, in that order.
        plan: of the step.
        lengths: of all conversations of the mixture.
        rank: whose micro-batches.
        norm: see `token_weights`, as for `virtual_conversations`.
        virtual_conversations: size of a virtual micro-batch.
        pad_id: fills up.
    """
    weights = token_weights([mask for _, mask in conversations], norm, virtual_conversations)
    lay_out = _padded if plan.padded else _end_to_end
    batches = []
    for pass_ in range(plan.passes):
        row = plan.row(pass_, rank).tolist()
        batches.append(lay_out([conversations[i][0] for i in row], [weights[i] for i in row], pad_id))
    computed = plan.computed_tokens(lengths)
    counts = StepCounts(
        conversations=len(conversations),
        tokens=sum(len(ids) for ids, _ in conversations),
        supervised_tokens=sum(int((weight > 0).sum()) for weight in weights),
        computed_tokens=int(computed.sum()),
        lockstep_tokens=int(computed.max(axis=1).sum()) * plan.ranks,
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
    return MicroBatch(input_ids=input_ids_BT, weights=weights_BT, attention_mask=attention_mask_BT, boundaries=None)


def _end_to_end(
    rows: Sequence[npt.NDArray[np.integer]], weights: Sequence[npt.NDArray[np.float32]], pad_id: int
) -> MicroBatch:
    if not rows:
        rows, weights = [np.full(2, pad_id, dtype=np.int64)], [np.zeros(2, dtype=np.float32)]
    return MicroBatch(
        input_ids=np.concatenate(rows, dtype=np.int64)[None],
        weights=np.concatenate(weights, dtype=np.float32)[None],
        attention_mask=None,
        boundaries=row_boundaries(np.array([len(row) for row in rows])),
    )
