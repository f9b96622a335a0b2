"""Text between control tokens: the form in which every chat template reaches the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tulu_pipeline.chat.options import LossSpan
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.chat.template import pieces, supervised


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of ordinary text and the control token after it; a conversation is a sequence of them.

    What is a control token here is an id, so text never becomes one. The text before the first control token opens
    the conversation, any other follows one; a tokenizer may treat the two differently.

    Attributes:
        text: may be empty, as before a control token that opens the conversation or follows another one.
        starts: character offsets in `text` at which its pieces begin: ascending, the first is 0. A token belongs to
            the piece in which its first character lies.
        flags: for each piece, whether its tokens count for the loss.
        control: the id after the text; None only at the end of a conversation.
        control_counts: whether that id counts for the loss.
    """

    text: str
    starts: Sequence[int]
    flags: Sequence[bool]
    control: int | None = None
    control_counts: bool = False


def tulu_spans(conversation: Conversation, *, end_mark_id: int, loss_span: LossSpan) -> list[Span]:
    """A conversation in the paper's chat format."""
    stretches = pieces(conversation)
    spans: list[Span] = []
    text, starts, flags = "", list[int](), list[bool]()
    for piece, counts in zip(stretches, supervised(stretches, loss_span), strict=True):
        if piece.part == "end_mark":
            spans.append(Span(text, starts, flags, end_mark_id, counts))
            text, starts, flags = "", [], []
        else:
            starts.append(len(text))
            flags.append(counts)
            text += piece.text
    if text or not spans:
        spans.append(Span(text, starts, flags))
    return spans


def stripped(span: Span, *, follows: bool) -> Span:
    """The span without the white space that touches a control token, for tokenizers that swallow it."""
    text = span.text.lstrip() if follows else span.text
    cut = len(span.text) - len(text)
    starts = [max(0, start - cut) for start in span.starts]
    return Span(
        text.rstrip() if span.control is not None else text, starts, span.flags, span.control, span.control_counts
    )
