"""A conversation token by token, for people: which text each id stands for, and whether it counts for the loss.

The texts of the tokens, joined, are the text that the tokenizer was given: each token has what lies between its start
and the start of the next one. Where several tokens share a character (its bytes, or the space that LLaMA puts before a
text), the last of them has it, and the others are shown as what they are: `<0xF0>`, `▁`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Encoding

from tulu_pipeline.chat.options import EncodeOptions, Template
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.chat.spans import Span, stripped, tulu_spans
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.tokenizer import ChatTokenizer

_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_SPACE = "▁"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of a training text.

    Attributes:
        id: in the vocabulary.
        text: its share of the text; "" for BOS and for a token that holds no whole character.
        shown: what to print for it: its text, a control token's name, or bytes as `<0xF0>`.
        supervised: whether it is learned.
        control: whether it was placed as an id, which no text can become.
    """

    id: int
    text: str
    shown: str
    supervised: bool
    control: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """The tokens of a conversation.

    Attributes:
        tokens: as a model is trained on them.
        cut: how many more there were, beyond the longest length allowed.
        refused: why the chat template does not take the conversation, which then has no tokens.
    """

    tokens: tuple[Token, ...]
    cut: int = 0
    refused: str = ""

    @property
    def supervised(self) -> int:
        """How many tokens are learned."""
        return sum(token.supervised for token in self.tokens)


def load_viewer(
    folder: Path, tokenizer: ChatTokenizer, options: EncodeOptions, template: Template
) -> Callable[[Conversation], TokenView]:
    """What views conversations as training would see them.

    Args:
        folder: the tokenizer's, which may hold a chat template of its own.
        tokenizer: read from it.
        options: what is cut and what is supervised.
        template: the paper's chat format, or the tokenizer's own.

    Raises:
        BadInput: the tokenizer's own template is asked for, and there is none that can be used.
    """
    if template == "tulu":
        return lambda conversation: view_tokens(conversation, tokenizer, options)
    own = load_own_template(folder, tokenizer, loss_span=options.loss_span)

    def view(conversation: Conversation) -> TokenView:
        try:
            spans = own.spans(conversation)
        except BadInput as refused:
            return TokenView(tokens=(), refused=refused.what)
        return view_spans(spans, tokenizer, max_length_tokens=options.max_length_tokens, add_bos=not own.writes_bos)

    return view


def view_tokens(conversation: Conversation, tokenizer: ChatTokenizer, options: EncodeOptions) -> TokenView:
    """The ids and the mask of `tokens.encode.encode`, each with the text behind it."""
    spans = tulu_spans(conversation, end_mark_id=tokenizer.end_mark_id, loss_span=options.loss_span)
    return view_spans(spans, tokenizer, max_length_tokens=options.max_length_tokens)


def view_spans(
    spans: Sequence[Span], tokenizer: ChatTokenizer, *, max_length_tokens: int, add_bos: bool = True
) -> TokenView:
    """The ids and the mask of `tokens.encode.encode_spans`, each with the text behind it."""
    byte_level = _is_byte_level(tokenizer)
    bos_ids = tokenizer.bos_ids if add_bos else ()
    tokens = [replace(_control(token_id, tokenizer, supervised=False), text="") for token_id in bos_ids]
    for index, whole in enumerate(spans):
        span = stripped(whole, follows=index > 0) if tokenizer.strips_at_end_mark else whole
        (encoding,) = tokenizer.encode_texts([span.text], after_end_mark=index > 0)
        tokens.extend(_of_text(span, encoding, byte_level=byte_level))
        if span.control is not None:
            tokens.append(_control(span.control, tokenizer, supervised=span.control_counts))
    kept = tokens[:max_length_tokens]
    kept[:1] = [replace(token, supervised=False) for token in kept[:1]]  # nothing predicts the first
    return TokenView(tokens=tuple(kept), cut=len(tokens) - len(kept))


def shown_record(conversation: Conversation, view: TokenView) -> dict[str, Any]:
    """A conversation and its tokens as JSON, in columns: one entry per token, exceptions by position."""
    tokens = view.tokens
    return {
        "id": conversation.id,
        "license": conversation.license,
        "language": conversation.language,
        "cut": view.cut,
        "refused": view.refused,
        "ids": [token.id for token in tokens],
        "texts": [token.text for token in tokens],
        "shown": {str(place): token.shown for place, token in enumerate(tokens) if token.shown != token.text},
        "supervised": "".join("01"[token.supervised] for token in tokens),
        "control": [place for place, token in enumerate(tokens) if token.control],
    }


def _control(token_id: int, tokenizer: ChatTokenizer, *, supervised: bool) -> Token:
    name = tokenizer.names.id_to_token(token_id) or f"<{token_id}>"
    return Token(id=token_id, text=name, shown=name, supervised=supervised, control=True)


def _of_text(span: Span, encoding: Encoding, *, byte_level: bool) -> Iterator[Token]:
    starts = [start for start, _ in encoding.offsets]
    before, piece = 0, 0
    for index, (token_id, name) in enumerate(zip(encoding.ids, encoding.tokens, strict=True)):
        while piece + 1 < len(span.starts) and span.starts[piece + 1] <= starts[index]:
            piece += 1
        end = max(before, starts[index + 1]) if index + 1 < len(starts) else len(span.text)
        text, before = span.text[before:end], end
        shown = _shown(name, text, byte_level=byte_level)
        yield Token(id=token_id, text=text, shown=shown, supervised=span.flags[piece], control=False)


def _shown(name: str, text: str, *, byte_level: bool) -> str:
    raw = _bytes_of(name, byte_level=byte_level)
    # An undecodable byte becomes a lone surrogate, U+DC80 to U+DCFF.
    decoded = raw.decode("utf-8", "surrogateescape")
    if any("\udc80" <= character <= "\udcff" for character in decoded):
        return "".join(
            f"<0x{ord(character) - 0xDC00:02X}>" if "\udc80" <= character <= "\udcff" else character
            for character in decoded
        )
    return text or name


def _bytes_of(name: str, *, byte_level: bool) -> bytes:
    """The bytes that a piece of the vocabulary stands for."""
    if found := _BYTE_PIECE.fullmatch(name):
        return bytes([int(found[1], 16)])
    if byte_level:
        known = _byte_letters()
        return b"".join(bytes([known[letter]]) if letter in known else letter.encode() for letter in name)
    return name.replace(_SPACE, " ").encode()


def _is_byte_level(tokenizer: ChatTokenizer) -> bool:
    """Whether the vocabulary is written in letters that stand for bytes (GPT-2's), rather than in text."""
    known = tokenizer.names.token_to_id
    return known("<0x0A>") is None and all(known(letter) is not None for letter in _byte_letters())


@cache
def _byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}
