"""The loss of a step is fixed by its conversations; how they are laid out changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.recipe import LossNorm
from tulu_pipeline.training.batching.batches import MicroBatch, StepCounts, Tokens, step_batches, token_weights
from tulu_pipeline.training.batching.plans import StepPlan, padded_plan, step_plan

PAD = 3


@st.composite
def conversations(draw: st.DrawFn) -> list[Tokens]:
    made = []
    for index in range(draw(st.integers(1, 24))):
        length = draw(st.integers(2, 40))
        mask = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)), dtype=np.uint8)
        mask[0], mask[-1] = draw(st.booleans()), 1
        made.append((np.arange(100 * index, 100 * index + length, dtype=np.uint32), mask))
    return made


def negative_log_likelihood(token: int) -> float:
    """Any function of a token will do."""
    return 0.1 + (token * 2654435761 % 1000) / 100


def loss_of_original(made: list[Tokens], size: int) -> float:
    """Mean over the supervised tokens of each micro-batch, then over micro-batches, by the book."""
    means = []
    for start in range(0, len(made), size):
        group = made[start : start + size]
        losses = [
            negative_log_likelihood(int(token)) for ids, mask in group for token in ids[1:][mask[1:].astype(bool)]
        ]
        means.append(sum(losses) / len(losses))
    return sum(means) / len(means)


@st.composite
def plans(draw: st.DrawFn, made: list[Tokens]) -> StepPlan:
    """Any layout, on any number of ranks, in few or many passes."""
    positions, lengths = np.arange(len(made)), lengths_of(made)
    ranks = draw(st.integers(1, 4))
    if draw(st.booleans()):
        return padded_plan(positions, ranks=ranks, conversations_per_row=draw(st.integers(1, 4)))
    return step_plan(positions, lengths, ranks=ranks, budget_tokens=draw(st.integers(40, 400)))


def lengths_of(made: list[Tokens]) -> np.ndarray:
    return np.array([len(ids) for ids, _ in made])


def batches_of(
    made: list[Tokens], plan: StepPlan, norm: LossNorm, size: int = 2
) -> tuple[list[MicroBatch], StepCounts]:
    """Those of all ranks."""
    batches = []
    for rank in range(plan.ranks):
        mine, counts = step_batches(
            made, plan, lengths_of(made), rank=rank, norm=norm, virtual_conversations=size, pad_id=PAD
        )
        assert len(mine) == plan.passes
        batches += mine
    return batches, counts


def loss_of_batches(made: list[Tokens], plan: StepPlan, norm: LossNorm, size: int) -> float:
    total = 0.0
    for batch in batches_of(made, plan, norm, size)[0]:
        for token, weight in zip(batch.input_ids.flat, batch.weights.flat, strict=True):
            total += float(weight) * negative_log_likelihood(int(token))
    return total


def conversations_in(batch: MicroBatch) -> list[tuple[int, ...]]:
    if batch.boundaries is not None:
        assert batch.attention_mask is None
        return [tuple(part) for part in np.split(batch.input_ids[0], batch.boundaries[1:-1])]
    assert batch.attention_mask is not None
    assert (batch.input_ids[batch.attention_mask == 0] == PAD).all()
    assert (batch.weights[batch.attention_mask == 0] == 0).all()
    return [tuple(row[mask == 1]) for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]


@given(st.data(), conversations(), st.integers(1, 5))
def test_the_loss_is_the_originals_in_every_layout(data: st.DataObject, made: list[Tokens], size: int) -> None:
    plan = data.draw(plans(made))
    assert loss_of_batches(made, plan, "micro_mean", size) == pytest.approx(loss_of_original(made, size), rel=1e-5)


@given(st.data(), conversations())
def test_token_mean_is_one_mean_over_all_tokens(data: st.DataObject, made: list[Tokens]) -> None:
    plan = data.draw(plans(made))
    wanted = loss_of_original(made, len(made))
    assert loss_of_batches(made, plan, "token_mean", 2) == pytest.approx(wanted, rel=1e-5)


@given(st.data(), conversations())
def test_every_conversation_is_in_exactly_one_micro_batch_whole(data: st.DataObject, made: list[Tokens]) -> None:
    plan = data.draw(plans(made))
    batches, counts = batches_of(made, plan, "token_mean")
    found = [row for batch in batches for row in conversations_in(batch)]
    dummies = [row for row in found if row == (PAD, PAD)]
    assert sorted(row for row in found if row != (PAD, PAD)) == sorted(tuple(ids) for ids, _ in made)
    assert len(found) - len(dummies) == counts.conversations
    assert counts.tokens == sum(len(ids) for ids, _ in made)
    assert counts.computed_tokens >= counts.tokens
    if not plan.padded:
        assert counts.computed_tokens == counts.tokens


@given(st.data(), conversations())
def test_nothing_predicts_the_first_token_of_a_conversation(data: st.DataObject, made: list[Tokens]) -> None:
    """Its neighbor in the row would."""
    for batch in batches_of(made, data.draw(plans(made)), "token_mean")[0]:
        starts = [0] if batch.boundaries is None else batch.boundaries[:-1]
        assert (batch.weights[:, starts] == 0).all()


def test_a_conversation_without_a_supervised_token_is_an_error() -> None:
    masks = [np.array([0, 1], dtype=np.uint8), np.array([1, 0], dtype=np.uint8)]
    with pytest.raises(BadInput, match="conversation 1 of the step"):
        token_weights(masks, "token_mean", 2)
