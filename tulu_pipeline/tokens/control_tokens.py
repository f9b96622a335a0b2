"""Control tokens that a chat template writes as text, and only those, become ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tulu_pipeline.chat.spans import Span
from tulu_pipeline.tokens import white_space

if TYPE_CHECKING:
    from tulu_pipeline.tokens.tokenizer import ChatTokenizer  # imports the tokenizers library


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of rendered text.

    Attributes:
        text: as rendered.
        message: which message it is the content of; None for the template's own text, where control tokens are ids.
        counts: whether it is supervised.
    """

    text: str
    message: int | None = None
    counts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is asked.

    Attributes:
        text: as rendered.
        controls: start and end of each control token in it; all else is ordinary text, whatever it looks like.
    """

    text: str
    controls: tuple[tuple[int, int], ...] = ()

    def parts(self) -> list[Part]:
        """The prompt with control tokens apart."""
        parts, done = list[Part](), 0
        for start, end in self.controls:
            parts += [Part(self.text[done:start], message=0), Part(self.text[start:end])]
            done = end
        return [*parts, Part(self.text[done:], message=0)]


@dataclass(frozen=True, slots=True)
class ControlTokens:
    """The special tokens of a tokenizer. Make it with `of`.

    Attributes:
        ids: by text.
        swallows_before, swallows_after: ids of those to which white space beside them belongs.
    """

    ids: dict[str, int]
    swallows_before: frozenset[int]
    swallows_after: frozenset[int]
    _pattern: re.Pattern[str] = field(repr=False)

    @staticmethod
    def of(tokenizer: ChatTokenizer) -> ControlTokens:
        """The control tokens of a tokenizer."""
        added = tokenizer.names.get_added_tokens_decoder()
        special = {token_id: token for token_id, token in added.items() if token.special}
        longest_first = sorted((token.content for token in special.values()), key=len, reverse=True)
        return ControlTokens(
            ids={token.content: token_id for token_id, token in special.items()},
            swallows_before=frozenset(token_id for token_id, token in special.items() if token.lstrip),
            swallows_after=frozenset(token_id for token_id, token in special.items() if token.rstrip),
            _pattern=re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})"),
        )

    def split(self, text: str) -> list[str]:
        """Text and control tokens in turn; begins and ends with text, which may be empty."""
        return self._pattern.split(text)

    def spans(self, parts: Iterable[Part]) -> list[Span]:
        """What `tokens.encode.encode_spans` takes."""
        spans: list[Span] = []
        text, starts, flags = "", list[int](), list[bool]()
        for piece, control, counts in self.pieces(parts):
            if control is None:
                starts.append(len(text))
                flags.append(counts)
                text += piece
            else:
                spans.append(Span(text, starts, flags, control, counts))
                text, starts, flags = "", [], []
        if text or not spans:
            spans.append(Span(text, starts, flags))
        return self._swallow(spans)

    def pieces(self, parts: Iterable[Part]) -> Iterator[tuple[str, int | None, bool]]:
        """Stretches of text, and control tokens with their ids; and whether they count."""
        for part in parts:
            stretches = self.split(part.text) if part.message is None else [part.text]
            for index, text in enumerate(stretches):
                if text:
                    yield text, self.ids[text] if index % 2 else None, part.counts

    def _swallow(self, spans: Sequence[Span]) -> list[Span]:
        if not self.swallows_before and not self.swallows_after:
            return list(spans)
        before = [None, *(span.control for span in spans)]
        return [
            _stripped(span, left=control in self.swallows_after, right=span.control in self.swallows_before)
            for control, span in zip(before, spans, strict=False)
        ]


def opens_with_bos(spans: Sequence[Span], tokenizer: ChatTokenizer) -> bool:
    """Whether the text itself begins with BOS, so that none is added."""
    return not spans[0].text and spans[0].control in tokenizer.bos_ids


def _stripped(span: Span, *, left: bool, right: bool) -> Span:
    text = span.text.lstrip(white_space.UNICODE) if left else span.text
    cut = len(span.text) - len(text)
    return replace(
        span,
        text=text.rstrip(white_space.UNICODE) if right else text,
        starts=[max(0, start - cut) for start in span.starts],
    )
