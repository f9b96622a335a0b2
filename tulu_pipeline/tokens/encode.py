"""A conversation as the model sees it: token ids and which of them count for the loss.

A token belongs to the piece of the template in which its first character lies. Where one piece ends and the next
begins, no LLaMA token crosses (a newline never merges), so this is what the original got by tokenizing ever longer
prefixes; where the space that opens a text shares its offset with the character after it, both lie in one piece.

A template makes marked text of conversations (`tokens.tulu_text`, `tokens.marked_text`), the tokenizer's encoder turns
it into ids and masks (`tokens.text_encoder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.chat.spans import Span
from tulu_pipeline.tokens.encoded import Encoded, EncodedBatch, id_type
from tulu_pipeline.tokens.marked_text import marked
from tulu_pipeline.tokens.tokenizer import ChatTokenizer
from tulu_pipeline.tokens.tulu_text import conversation_lists, tulu_texts

__all__ = ["Encoded", "EncodedBatch", "encode", "encode_lists", "encode_many", "encode_spans", "id_type"]

_SPANS_AT_ONCE = 512


def encode(conversation: Conversation, tokenizer: ChatTokenizer, options: EncodeOptions) -> Encoded:
    """Ids and loss mask of one conversation.

    BOS stands once, as the tokenizer adds it, the end mark after each assistant message; the right is cut to
    `options.max_length_tokens`.
    """
    return encode_many([conversation], tokenizer, options)[0]


def encode_many(
    conversations: Sequence[Conversation], tokenizer: ChatTokenizer, options: EncodeOptions
) -> list[Encoded]:
    """`encode` of each."""
    lists = conversation_lists(conversations)
    return [encoded for batch in encode_lists(lists, tokenizer, options) for encoded in batch]


def encode_lists(
    conversations: pa.ListArray, tokenizer: ChatTokenizer, options: EncodeOptions
) -> Iterator[EncodedBatch]:
    """`encode` of conversations as they lie in Parquet, lists of {role, content}: in order, some at a time."""
    texts = tulu_texts(
        conversations,
        end_mark_id=tokenizer.end_mark_id,
        loss_span=options.loss_span,
        strips=tokenizer.strips_at_end_mark,
    )
    for some in texts:
        yield tokenizer.encoder.encode(some, bos_ids=tokenizer.bos_ids, max_length_tokens=options.max_length_tokens)


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
    result: list[Encoded] = []
    for start in range(0, len(conversations), _SPANS_AT_ONCE):
        texts = marked(conversations[start : start + _SPANS_AT_ONCE], strips=tokenizer.strips_at_end_mark)
        bos_ids = tokenizer.bos_ids if add_bos else ()
        result += tokenizer.encoder.encode(texts, bos_ids=bos_ids, max_length_tokens=max_length_tokens)
    return result
