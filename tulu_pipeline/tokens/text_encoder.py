"""The front of the two ways to encode: the fast one where it is exact, the plain one for the rest.

Which it is follows from the tokenizer's files alone. What the reasoning of `tokens.cuts` allows is tried once more when
a tokenizer is loaded, on texts that tell tokenizers apart; where the two ways differed there, the plain one is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tulu_pipeline.chat.spans import Span
from tulu_pipeline.tokens.cuts import find_cuts
from tulu_pipeline.tokens.encoded import EncodedBatch, joined
from tulu_pipeline.tokens.fast_text import FastText
from tulu_pipeline.tokens.llama_shape import LEGACY, is_llama
from tulu_pipeline.tokens.marked_text import MarkedText, marked
from tulu_pipeline.tokens.plain_text import PlainText

_NO_LIMIT = 2**31
_TEXTS_AT_ONCE = 2**12
_PROBES = (
    "<|user|>\nTwo  spaces, 1234.5 or 6,789,012\n\tTab\n\n\n  x = y[0]\r\n<|assistant|>\nÜber 猫 🐪\n",
    "\n<|user|>\n </s> end",
    " It's we'll DON'T I'Ve 'tis o'clock's 'S",
    "▁▁a ▁ b\u00a0c\u2003 d\u200b e\u3000f \u0085\n\u2028\n“Q” e\u0301 \u0301\n\u0301= \u0338 <\u0338",
    "http://a.b/c?d=e&f=%20#g_h-i (j){k}[l] \\n $5.00 50% #1 @me ~/.x",
    "   \n \n  \n\n a \t\t b   ",
    "漢字かな交じり文。 한국어 हिन्दी العربية עברית\n«é» ١٢٣ ½ Ⅷ x² \x00\x01\x1f\x7f",
    "",
)


class TextEncoder:
    """Encodes marked text; one thread at a time.

    Attributes:
        way: `fast`, or `plain: ` and why.
    """

    def __init__(self, plain: PlainText, fast: FastText | str, id_type: type[np.unsignedinteger]) -> None:
        self._plain, self._id_type = plain, id_type
        self._fast: FastText | None = None
        if isinstance(fast, str):
            self.way = f"plain: {fast}"
        elif not self._agree(fast):
            self.way = "plain: the fast way gives other tokens for a text that tells tokenizers apart"
        else:
            self._fast, self.way = fast, "fast"

    def encode(
        self, texts: MarkedText, *, bos_ids: tuple[int, ...] = (), max_length_tokens: int = _NO_LIMIT
    ) -> EncodedBatch:
        """Ids and masks of conversations, `bos_ids` before each, cut on the right."""
        return self._encode(self._fast, texts, bos_ids, max_length_tokens)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by itself."""
        counts: list[int] = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            spans = [[Span(text, [0], [False])] for text in texts[start : start + _TEXTS_AT_ONCE]]
            counts += self.encode(marked(spans, strips=False)).lengths().tolist()
        return counts

    def _encode(
        self, fast: FastText | None, texts: MarkedText, bos_ids: tuple[int, ...], max_length_tokens: int
    ) -> EncodedBatch:
        if fast is None:
            everything = np.ones(texts.count, dtype=bool)
            rows = self._plain.encode(texts, everything, bos_ids=bos_ids, max_length_tokens=max_length_tokens)
            return joined(rows, self._id_type)
        encoded, other_way = fast.encode(texts, bos_ids=bos_ids, max_length_tokens=max_length_tokens)
        if not other_way.any():
            return encoded
        others = iter(self._plain.encode(texts, other_way, bos_ids=bos_ids, max_length_tokens=max_length_tokens))
        rows = [next(others) if other else row for row, other in zip(encoded, other_way.tolist(), strict=True)]
        return joined(rows, self._id_type)

    def _agree(self, fast: FastText) -> bool:
        opening = [[Span(text, [0], [True])] for text in _PROBES]
        following = [[Span("", [], [], control=0), Span(text, [0], [True])] for text in _PROBES]
        texts = marked([*opening, *following], strips=False)
        ours, theirs = (self._encode(way, texts, (), _NO_LIMIT) for way in (fast, None))
        return all(
            np.array_equal(getattr(ours, column), getattr(theirs, column))
            for column in ("input_ids", "loss_mask", "offsets")
        )


def text_encoder(
    opening: tuple[Mapping[str, Any], Tokenizer],
    following: tuple[Mapping[str, Any], Tokenizer],
    *,
    special_is_text: bool,
    never_text: frozenset[int],
    id_type: type[np.unsignedinteger],
) -> TextEncoder:
    """The encoder of a tokenizer.

    Args:
        opening: `tokenizer.json` as parsed and as built, for texts that open a conversation.
        following: likewise, for texts that follow a control token.
        special_is_text: special tokens typed in a text stay text.
        never_text: ids that then stand for no text.
        id_type: of the ids.
    """
    cuts = find_cuts(opening[0], following[0], special_is_text=special_is_text)
    plain = PlainText(opening[1], following[1], id_type, never_text)
    if isinstance(cuts, str):
        return TextEncoder(plain, cuts, id_type)
    backend = opening[1]
    if is_llama(opening[0]):
        _, spaces = LEGACY[0]["normalizers"]
        bare = {"normalizer": spaces, "pre_tokenizer": None, "post_processor": None, "truncation": None}
        backend = Tokenizer.from_str(json.dumps({**opening[0], **bare, "padding": None}))
        backend.encode_special_tokens = True
    return TextEncoder(plain, FastText(cuts, backend, id_type), id_type)
