"""Conversations in the paper's chat format as marked text, straight from Arrow columns: no object per message.

The same text as `chat.spans.tulu_spans` describes one conversation at a time; the tests hold the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tulu_pipeline.chat.options import LossSpan
from tulu_pipeline.chat.schema import Conversation, Role
from tulu_pipeline.chat.template import tag
from tulu_pipeline.tokens import white_space
from tulu_pipeline.tokens.cuts import MARK
from tulu_pipeline.tokens.encoded import offsets_of
from tulu_pipeline.tokens.marked_text import OPENS, MarkedText

_MARK = bytes([MARK])
_ROLES: tuple[Role, ...] = get_args(Role)
# By role, + 3 where it opens a conversation, + 6 where nothing stands between the tag and what follows.
_HEADS = pa.array(
    [
        mark + tag(role).encode() + newline
        for newline, mark in ((b"\n", b""), (b"\n", _MARK), (b"", b""), (b"", _MARK))
        for role in _ROLES
    ]
)
# + 1 after an answer, + 2 where no newline follows.
_TAILS = pa.array([b"\n", _MARK + b"\n", b"", _MARK])
_HEAD_LENGTHS, _TAIL_LENGTHS = (pc.binary_length(table).to_numpy() for table in (_HEADS, _TAILS))
_BYTES_AT_ONCE = 2**22  # keeps a batch's words in the processor's cache


def conversation_lists(conversations: Sequence[Conversation]) -> pa.ListArray:
    """The messages of conversations as they lie in Parquet."""
    messages = [message for conversation in conversations for message in conversation.messages]
    columns = [pa.array([getattr(message, name) for message in messages], pa.string()) for name in ("role", "content")]
    ends = offsets_of([len(conversation.messages) for conversation in conversations])
    structs = pa.StructArray.from_arrays(columns, names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), structs)


def tulu_texts(
    conversations: pa.ListArray, *, end_mark_id: int, loss_span: LossSpan, strips: bool
) -> Iterator[MarkedText]:
    """Conversations in the paper's chat format, in order, a few megabytes at a time.

    Args:
        conversations: lists of {role, content}.
        end_mark_id: what follows an assistant's content.
        loss_span: what counts for the loss.
        strips: white space around end marks is left out.
    """
    offsets = conversations.offsets.to_numpy()
    contents = conversations.values.field("content")
    sizes = np.diff(offsets_of(pc.binary_length(contents).to_numpy())[offsets])
    batches = np.cumsum(sizes) // _BYTES_AT_ONCE
    borders = [0, *(np.flatnonzero(np.diff(batches)) + 1).tolist(), len(conversations)]
    for first, after in pairwise(borders):
        if first < after:
            yield _tulu_text(conversations[first:after], end_mark_id, loss_span, strips)


def _tulu_text(conversations: pa.ListArray, end_mark_id: int, loss_span: LossSpan, strips: bool) -> MarkedText:
    offsets = conversations.offsets.to_numpy() - conversations.offsets[0].as_py()
    messages = conversations.flatten()
    roles = pc.index_in(messages.field("role"), pa.array(_ROLES)).to_numpy()
    contents = pc.utf8_trim(messages.field("content"), white_space.PYTHON)
    lengths = pc.binary_length(contents).to_numpy()

    opens, ends = np.zeros((2, len(roles)), dtype=bool)
    opens[offsets[:-1]] = True
    ends[offsets[1:] - 1] = True
    answers = roles == _ROLES.index("assistant")
    # White space at the end of a conversation, and with `strips` before an end mark, reaches back into the tag.
    bare = (lengths == 0) & np.where(answers, strips, ends)
    heads = roles + len(_ROLES) * (opens + 2 * bare)
    tails = answers + 2 * (ends | (answers & strips))
    head, tail = (table.take(pa.array(places)) for table, places in ((_HEADS, heads), (_TAILS, tails)))
    text = pc.binary_join_element_wise(head, contents.cast(pa.binary()), tail, b"")

    starts = np.empty((len(roles), 3), np.int64)  # of tag, content, newline; marks have flags of their own
    starts[:, 0] = offsets_of(_HEAD_LENGTHS[heads] + lengths + _TAIL_LENGTHS[tails])[:-1]
    starts[:, 1] = starts[:, 0] + _HEAD_LENGTHS[heads]
    starts[:, 2] = starts[:, 1] + lengths
    asked = np.roll(~answers, 1) & ~opens
    tulu1 = loss_span == "tulu1"
    flags = np.stack([answers & ~asked & tulu1, answers, answers & tulu1], axis=1)

    is_mark = np.stack([opens, answers], axis=1)
    return MarkedText(
        text=text.buffers()[2].to_pybytes(),
        starts=starts.ravel(),
        flags=flags.ravel(),
        controls=np.broadcast_to([OPENS, end_mark_id], is_mark.shape)[is_mark],
        control_flags=np.broadcast_to([False, True], is_mark.shape)[is_mark],
    )
