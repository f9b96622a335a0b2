"""Token ids and loss masks: of one conversation, and of many in one piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Ids and mask of one conversation.

    Attributes:
        input_ids: uint16 where the vocabulary allows, else uint32.
        loss_mask: uint8, 1 where the token is learned. Never at the first position, which nothing predicts.
        truncated: whether the conversation was longer than allowed.
    """

    input_ids: npt.NDArray[np.unsignedinteger]
    loss_mask: npt.NDArray[np.uint8]
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedBatch:
    """Ids and masks of conversations, one after the other.

    Attributes:
        input_ids, loss_mask: of all, types as in `Encoded`.
        offsets: int64, one more than there are conversations: `offsets[i]` to `offsets[i + 1]` is conversation `i`.
        truncated: bool, for each.
    """

    input_ids: npt.NDArray[np.unsignedinteger]
    loss_mask: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truncated)

    def __iter__(self) -> Iterator[Encoded]:
        ends = self.offsets.tolist()
        for row, truncated in enumerate(self.truncated.tolist()):
            here = slice(ends[row], ends[row + 1])
            yield Encoded(self.input_ids[here], self.loss_mask[here], truncated)

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each conversation."""
        return np.diff(self.offsets)

    def supervised(self) -> npt.NDArray[np.int64]:
        """Tokens of each conversation that are learned."""
        before = np.concatenate([[0], np.cumsum(self.loss_mask, dtype=np.int64)])
        return np.diff(before[self.offsets])

    def cut_answers(self, end_ids: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which conversations end inside an answer, of which `end_ids` are the end marks."""
        # After an end mark a newline may be learned too, at most two tokens.
        lasts = self.offsets[1:, None] - np.arange(1, 4)
        inside = lasts >= self.offsets[:-1, None]
        lasts = np.maximum(lasts, 0)
        ended = (np.isin(self.input_ids[lasts], end_ids) & inside).any(axis=1)
        learned = (self.loss_mask[lasts[:, 0]] == 1) & inside[:, 0]
        answers: npt.NDArray[np.bool_] = self.truncated & learned & ~ended
        return answers

    def rows(self, first: int, after: int) -> EncodedBatch:
        """The conversations `first` to `after`, without copying tokens."""
        tokens = slice(int(self.offsets[first]), int(self.offsets[after]))
        return EncodedBatch(
            input_ids=self.input_ids[tokens],
            loss_mask=self.loss_mask[tokens],
            offsets=self.offsets[first : after + 1] - self.offsets[first],
            truncated=self.truncated[first:after],
        )

    def kept(self, keep: npt.NDArray[np.bool_]) -> EncodedBatch:
        """The conversations at which `keep` is true."""
        if keep.all():
            return self
        lengths = self.lengths()
        tokens = np.repeat(keep, lengths)
        return EncodedBatch(
            input_ids=self.input_ids[tokens],
            loss_mask=self.loss_mask[tokens],
            offsets=offsets_of(lengths[keep]),
            truncated=self.truncated[keep],
        )


def cut(
    input_ids: npt.NDArray[np.unsignedinteger],
    loss_mask: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    max_length_tokens: int,
) -> EncodedBatch:
    """Conversations cut on the right; nothing is learned at their first positions."""
    lengths = np.diff(offsets)
    truncated = lengths > max_length_tokens
    if truncated.any():
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        kept = places < max_length_tokens
        input_ids, loss_mask = input_ids[kept], loss_mask[kept]
        lengths = np.minimum(lengths, max_length_tokens)
        offsets = offsets_of(lengths)
    loss_mask[offsets[:-1][lengths > 0]] = 0
    return EncodedBatch(input_ids=input_ids, loss_mask=loss_mask, offsets=offsets, truncated=truncated)


def concatenated(batches: Sequence[EncodedBatch], kind: type[np.unsignedinteger]) -> EncodedBatch:
    """The conversations of batches in one piece."""
    return EncodedBatch(
        input_ids=np.concatenate([np.zeros(0, kind), *(batch.input_ids for batch in batches)]),
        loss_mask=np.concatenate([np.zeros(0, np.uint8), *(batch.loss_mask for batch in batches)]),
        offsets=offsets_of(np.concatenate([np.zeros(0, np.int64), *(batch.lengths() for batch in batches)])),
        truncated=np.concatenate([np.zeros(0, bool), *(batch.truncated for batch in batches)]),
    )


def joined(rows: Sequence[Encoded], kind: type[np.unsignedinteger]) -> EncodedBatch:
    """The conversations in one piece."""
    return EncodedBatch(
        input_ids=np.concatenate([np.zeros(0, kind), *(row.input_ids for row in rows)]),
        loss_mask=np.concatenate([np.zeros(0, np.uint8), *(row.loss_mask for row in rows)]),
        offsets=offsets_of([len(row.input_ids) for row in rows]),
        truncated=np.array([row.truncated for row in rows], dtype=bool),
    )


def offsets_of(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Where things of these lengths begin, one after the other, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def id_type(vocabulary_size: int) -> type[np.unsignedinteger]:
    """The narrowest type that holds the ids of a vocabulary."""
    return np.uint16 if vocabulary_size <= 2**16 else np.uint32
