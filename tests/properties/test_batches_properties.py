"""The loss of a step is fixed by its conversations; how they are laid out changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.recipe import LossNorm
from tulu_pipeline.training.batches import Tokens, layout, step_batches, token_weights

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


def loss_of_batches(made: list[Tokens], ranks: int, passes: int, norm: LossNorm, size: int) -> float:
    total = 0.0
    for rank in range(ranks):
        batches, _ = step_batches(
            made, rank=rank, ranks=ranks, passes=passes, norm=norm, virtual_conversations=size, pad_id=PAD
        )
        assert len(batches) == passes
        for batch in batches:
            for token, weight in zip(batch.input_ids.flat, batch.weights.flat, strict=True):
                total += float(weight) * negative_log_likelihood(int(token))
    return total


@given(conversations(), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_the_loss_is_the_originals_for_every_number_of_ranks_and_passes(
    made: list[Tokens], ranks: int, passes: int, size: int
) -> None:
    assert loss_of_batches(made, ranks, passes, "micro_mean", size) == pytest.approx(
        loss_of_original(made, size), rel=1e-5
    )


@given(conversations(), st.integers(1, 4), st.integers(1, 4))
def test_token_mean_is_one_mean_over_all_tokens(made: list[Tokens], ranks: int, passes: int) -> None:
    assert loss_of_batches(made, ranks, passes, "token_mean", 2) == pytest.approx(
        loss_of_original(made, len(made)), rel=1e-5
    )


@given(conversations(), st.integers(1, 4), st.integers(1, 4))
def test_every_conversation_is_in_exactly_one_micro_batch_whole(made: list[Tokens], ranks: int, passes: int) -> None:
    found = []
    for rank in range(ranks):
        batches, counts = step_batches(
            made, rank=rank, ranks=ranks, passes=passes, norm="token_mean", virtual_conversations=2, pad_id=PAD
        )
        for batch in batches:
            found += [tuple(row[mask == 1]) for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
            assert (batch.input_ids[batch.attention_mask == 0] == PAD).all()
            assert (batch.weights[batch.attention_mask == 0] == 0).all()
    dummies = [row for row in found if row == (PAD, PAD)]
    assert sorted(row for row in found if row != (PAD, PAD)) == sorted(tuple(ids) for ids, _ in made)
    assert len(found) - len(dummies) == counts.conversations
    assert counts.tokens == sum(len(ids) for ids, _ in made)
    assert counts.computed_tokens >= counts.tokens


@given(st.lists(st.integers(2, 500), min_size=1, max_size=60), st.integers(1, 4), st.integers(1, 8))
def test_no_micro_batch_is_larger_than_equal_shares_of_the_longest(lengths: list[int], ranks: int, passes: int) -> None:
    groups = [group for groups in layout(lengths, ranks, passes) for group in groups if group]
    largest = max(len(group) * max(lengths[i] for i in group) for group in groups)
    assert largest <= -(-len(lengths) // (ranks * passes)) * max(lengths)


def test_a_conversation_without_a_supervised_token_is_an_error() -> None:
    masks = [np.array([0, 1], dtype=np.uint8), np.array([1, 0], dtype=np.uint8)]
    with pytest.raises(BadInput, match="conversation 1 of the step"):
        token_weights(masks, "token_mean", 2)
