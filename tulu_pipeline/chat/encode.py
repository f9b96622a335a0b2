"""A conversation as the model sees it: token ids and which of them count for the loss.

A token belongs to the piece of the template in which its first character lies. Where one piece ends and the next
begins, no LLaMA token crosses (a newline never merges), so this is what the original got by tokenizing ever longer
prefixes; where the space that opens a text shares its offset with the character after it, both lie in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.chat.spans import Span, stripped, tulu_spans
from tulu_pipeline.chat.tokenizer import ChatTokenizer


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


def encode(conversation: Conversation, tokenizer: ChatTokenizer, options: EncodeOptions) -> Encoded:
    """Ids and loss mask of one conversation.

    BOS stands once, as the tokenizer adds it, the end mark after each assistant message; the right is cut to
    `options.max_length_tokens`.
    """
    return encode_many([conversation], tokenizer, options)[0]


def encode_many(
    conversations: Sequence[Conversation], tokenizer: ChatTokenizer, options: EncodeOptions
) -> list[Encoded]:
    """`encode` of each; the tokenizer works on all texts at once, on as many threads as it likes."""
    return encode_spans(
        [
            tulu_spans(conversation, end_mark_id=tokenizer.end_mark_id, loss_span=options.loss_span)
            for conversation in conversations
        ],
        tokenizer,
        max_length_tokens=options.max_length_tokens,
    )


def encode_spans(
    conversations: Sequence[Sequence[Span]], tokenizer: ChatTokenizer, *, max_length_tokens: int, add_bos: bool = True
) -> list[Encoded]:
    """Ids and loss masks of conversations in any chat format.

    Args:
        conversations: the spans of each, in order; all but the last of a conversation end in a control token.
        tokenizer: for the text of the spans.
        max_length_tokens: longer conversations are cut on the right, control tokens counted.
        add_bos: put before each what the tokenizer itself puts there; a format whose first span ends in BOS sets False.
    """
    if tokenizer.strips_at_end_mark:
        conversations = [
            [stripped(span, follows=index > 0) for index, span in enumerate(spans)] for spans in conversations
        ]
    opening = [span.text for spans in conversations for span in spans[:1]]
    following = [span.text for spans in conversations for span in spans[1:]]
    opened = iter(tokenizer.encode_texts(opening, after_end_mark=False))
    followed = iter(tokenizer.encode_texts(following, after_end_mark=True))
    bos_ids = tokenizer.bos_ids if add_bos else ()
    kind = id_type(tokenizer.vocabulary_size)
    return [
        _assemble(
            spans,
            [next(followed if index else opened) for index in range(len(spans))],
            bos_ids,
            max_length_tokens,
            kind,
        )
        for spans in conversations
    ]


def id_type(vocabulary_size: int) -> type[np.unsignedinteger]:
    """The narrowest type that holds the ids of a vocabulary."""
    return np.uint16 if vocabulary_size <= 2**16 else np.uint32


def _assemble(
    spans: Sequence[Span],
    encodings: Sequence[Encoding],
    bos_ids: Sequence[int],
    max_length_tokens: int,
    kind: type[np.unsignedinteger],
) -> Encoded:
    ids: list[int] = list(bos_ids)
    mask: list[npt.NDArray[np.bool_]] = [np.zeros(len(ids), dtype=bool)]
    for span, encoding in zip(spans, encodings, strict=True):
        ids += encoding.ids
        token_starts = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=len(encoding.ids))
        piece_of_token = np.searchsorted(span.starts, token_starts, side="right") - 1
        mask.append(np.array(span.flags, dtype=bool)[piece_of_token])
        if span.control is not None:
            ids.append(span.control)
            mask.append(np.array([span.control_counts]))
    kept = min(len(ids), max_length_tokens)
    loss_mask = np.concatenate(mask)[:kept].astype(np.uint8)
    loss_mask[:1] = 0
    return Encoded(np.array(ids[:kept], dtype=kind), loss_mask, truncated=len(ids) > kept)
