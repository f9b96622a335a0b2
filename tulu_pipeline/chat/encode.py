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
from tulu_pipeline.chat.template import pieces, supervised
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
    spans = [_spans(conversation, tokenizer, options) for conversation in conversations]
    opening = [span.text for of_one in spans for span in of_one[:1]]
    following = [span.text for of_one in spans for span in of_one[1:]]
    opened = iter(tokenizer.encode_texts(opening, after_end_mark=False))
    followed = iter(tokenizer.encode_texts(following, after_end_mark=True))
    return [
        _assemble(of_one, [next(followed if index else opened) for index in range(len(of_one))], tokenizer, options)
        for of_one in spans
    ]


def id_type(vocabulary_size: int) -> type[np.unsignedinteger]:
    """The narrowest type that holds the ids of a vocabulary."""
    return np.uint16 if vocabulary_size <= 2**16 else np.uint32


@dataclass(frozen=True, slots=True)
class _Span:
    """Text between two control tokens: where its pieces start, which of them count, and the end mark after it."""

    text: str
    starts: list[int]
    flags: list[bool]
    end_mark: bool = False
    end_mark_counts: bool = False


def _spans(conversation: Conversation, tokenizer: ChatTokenizer, options: EncodeOptions) -> list[_Span]:
    stretches = pieces(conversation)
    spans: list[_Span] = []
    text, starts, flags = "", list[int](), list[bool]()
    for piece, counts in zip(stretches, supervised(stretches, options.loss_span), strict=True):
        if piece.part == "end_mark":
            spans.append(_Span(text, starts, flags, end_mark=True, end_mark_counts=counts))
            text, starts, flags = "", [], []
        else:
            starts.append(len(text))
            flags.append(counts)
            text += piece.text
    if text or not spans:
        spans.append(_Span(text, starts, flags))
    if tokenizer.strips_at_end_mark:
        return [_stripped(span, after_end_mark=index > 0) for index, span in enumerate(spans)]
    return spans


def _stripped(span: _Span, *, after_end_mark: bool) -> _Span:
    text = span.text.lstrip() if after_end_mark else span.text
    cut = len(span.text) - len(text)
    starts = [max(0, start - cut) for start in span.starts]
    return _Span(text.rstrip() if span.end_mark else text, starts, span.flags, span.end_mark, span.end_mark_counts)


def _assemble(
    spans: list[_Span], encodings: list[Encoding], tokenizer: ChatTokenizer, options: EncodeOptions
) -> Encoded:
    ids: list[int] = list(tokenizer.bos_ids)
    mask: list[npt.NDArray[np.bool_]] = [np.zeros(len(ids), dtype=bool)]
    for span, encoding in zip(spans, encodings, strict=True):
        ids += encoding.ids
        token_starts = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=len(encoding.ids))
        piece_of_token = np.searchsorted(span.starts, token_starts, side="right") - 1
        mask.append(np.array(span.flags, dtype=bool)[piece_of_token])
        if span.end_mark:
            ids.append(tokenizer.end_mark_id)
            mask.append(np.array([span.end_mark_counts]))
    kept = min(len(ids), options.max_length_tokens)
    loss_mask = np.concatenate(mask)[:kept].astype(np.uint8)
    loss_mask[:1] = 0
    return Encoded(np.array(ids[:kept], dtype=id_type(tokenizer.vocabulary_size)), loss_mask, truncated=len(ids) > kept)
