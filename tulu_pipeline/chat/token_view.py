"""A conversation token by token, for people: which text each id stands for, and whether it counts for the loss.

The texts of the tokens, joined, are the text that the tokenizer was given: each token has what lies between its start
and the start of the next one. Where several tokens share a character (its bytes, or the space that LLaMA puts before a
text), the last of them has it, and the others are shown as what they are: `<0xF0>`, `▁`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

from tokenizers import Encoding

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Role
from tulu_pipeline.chat.template import Part, pieces, supervised
from tulu_pipeline.chat.tokenizer import ChatTokenizer

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
        control: BOS or an end mark, which no text can become.
        role: whose message it belongs to, "" for BOS.
        part: of the template.
    """

    id: int
    text: str
    shown: str
    supervised: bool
    control: bool
    role: Role | Literal[""]
    part: Part | Literal["bos"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """The tokens of a conversation.

    Attributes:
        tokens: as a model is trained on them.
        cut: how many more there were, beyond the longest length allowed.
    """

    tokens: tuple[Token, ...]
    cut: int = 0

    @property
    def supervised(self) -> int:
        """How many tokens are learned."""
        return sum(token.supervised for token in self.tokens)


def view_tokens(conversation: Conversation, tokenizer: ChatTokenizer, options: EncodeOptions) -> TokenView:
    """The ids and the mask of `chat.encode.encode`, each with the text behind it."""
    tokens = list(_control(tokenizer.bos_ids, tokenizer))
    for index, span in enumerate(_spans(conversation, tokenizer, options)):
        (encoding,) = tokenizer.encode_texts([span.text], after_end_mark=index > 0)
        tokens.extend(_of_span(span, encoding, byte_level=_is_byte_level(tokenizer)))
        if span.ends_with is not None:
            role, counts = span.ends_with
            tokens.append(
                Token(
                    id=tokenizer.end_mark_id,
                    text=tokenizer.end_mark,
                    shown=tokenizer.end_mark,
                    supervised=counts,
                    control=True,
                    role=role,
                    part="end_mark",
                )
            )
    kept = tokens[: options.max_length_tokens]
    kept[:1] = [replace(token, supervised=False) for token in kept[:1]]  # nothing predicts the first
    return TokenView(tokens=tuple(kept), cut=len(tokens) - len(kept))


@dataclass(slots=True)
class _Span:
    """Text between two control tokens, where its pieces start and what they are, and the end mark after it."""

    text: str = ""
    starts: list[int] = field(default_factory=list)
    pieces: list[tuple[Role, Part, bool]] = field(default_factory=list)
    ends_with: tuple[Role, bool] | None = None


def _spans(conversation: Conversation, tokenizer: ChatTokenizer, options: EncodeOptions) -> list[_Span]:
    stretches = pieces(conversation)
    spans = [_Span()]
    for piece, counts in zip(stretches, supervised(stretches, options.loss_span), strict=True):
        if piece.part == "end_mark":
            spans[-1].ends_with = (piece.role, counts)
            spans.append(_Span())
        else:
            spans[-1].starts.append(len(spans[-1].text))
            spans[-1].pieces.append((piece.role, piece.part, counts))
            spans[-1].text += piece.text
    if tokenizer.strips_at_end_mark:
        for index, span in enumerate(spans):
            _strip(span, after_end_mark=index > 0)
    return spans


def _strip(span: _Span, *, after_end_mark: bool) -> None:
    text = span.text.lstrip() if after_end_mark else span.text
    cut = len(span.text) - len(text)
    span.starts = [max(0, start - cut) for start in span.starts]
    span.text = text.rstrip() if span.ends_with is not None else text


def _of_span(span: _Span, encoding: Encoding, *, byte_level: bool) -> Iterator[Token]:
    starts = [start for start, _ in encoding.offsets]
    before, piece = 0, 0
    for index, (token_id, name) in enumerate(zip(encoding.ids, encoding.tokens, strict=True)):
        while piece + 1 < len(span.starts) and span.starts[piece + 1] <= starts[index]:
            piece += 1
        end = max(before, starts[index + 1]) if index + 1 < len(starts) else len(span.text)
        text, before = span.text[before:end], end
        role, part, counts = span.pieces[piece]
        yield Token(
            id=token_id,
            text=text,
            shown=_shown(name, text, byte_level=byte_level),
            supervised=counts,
            control=False,
            role=role,
            part=part,
        )


def _control(ids: Sequence[int], tokenizer: ChatTokenizer) -> Iterator[Token]:
    for token_id in ids:
        name = tokenizer.opening.id_to_token(token_id) or f"<{token_id}>"
        yield Token(id=token_id, text="", shown=name, supervised=False, control=True, role="", part="bos")


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
    known = tokenizer.opening.token_to_id
    return known("<0x0A>") is None and all(known(letter) is not None for letter in _byte_letters())


@cache
def _byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte: printable bytes are themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}
