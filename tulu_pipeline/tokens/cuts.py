r"""Where a text may be cut so that its parts, tokenized one by one, give the tokens of the whole.

Two kinds of tokenizers allow it, each by the two bytes at the cut alone:

- LLaMA's (BPE over the whole text, byte fallback, no pre-tokenizer). What stands between two characters is inside a
  token only if some merge joined them there, and a merge joins the last character of its left side to the first of its
  right side. So where no merge has these two, nothing ever crosses, and merges on one side know nothing of the other.
- Byte-level BPE behind one of the published patterns. A cut must be a border between two matches whatever stands around
  it, and what is left of it must match alike when the text ends there. So it is before white space that follows
  something else, since no match goes on from there to a space, and between letters, digits and ASCII punctuation, but
  where a pattern lets punctuation open a word or take newlines along. No pattern looks behind, and the one look ahead,
  `\s+(?!\S)`, is about white space alone, which is why after white space only a newline gives cuts.

Cuts lie between whole characters, so normalizing to NFC does not cross them: on one side or the other is an ASCII
character that composes with nothing before it, or a newline, which composes with nothing at all.

A text may hold marks: the byte 0xFF, which no UTF-8 has, in the place of each control token. It is a word by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tulu_pipeline.tokens import white_space
from tulu_pipeline.tokens.llama_shape import SPACE, Lead, is_llama, lead_of

MARK = 0xFF

_NEWLINE = 0x0A
_LETTERS, _DIGITS, _PRINTED = (
    np.array([byte < 0x80 and test(chr(byte)) for byte in range(256)])
    for test in (str.isalpha, str.isdigit, lambda character: "!" <= character <= "~")
)
_PUNCTUATION = _PRINTED & ~_LETTERS & ~_DIGITS
# White space of the patterns beyond ASCII's. It is Python's too, so no stripped content begins with it.
_WIDE_SPACES = [space.encode() for space in white_space.UNICODE if not space.isascii()]
_WIDE_SPACE_CODES = np.array([int.from_bytes(space.ljust(3, b"\0")) for space in _WIDE_SPACES])
# By its last byte alone; some letters share theirs with a wide space and give no cut.
_ENDS_NO_SPACE = _PRINTED | np.array([0x80 <= byte < 0xC0 or byte == MARK for byte in range(256)])
_ENDS_NO_SPACE[[space[-1] for space in _WIDE_SPACES]] = False
_BEGINS_NO_ASCII_SPACE = np.array([byte > 0x20 for byte in range(256)])  # control characters left aside

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_DIGITS_APART = {"type": "Digits", "individual_digits": True}
# The patterns of Llama 3 and of Qwen 2 and 3: one lets three digits be a word, the other one.
_LLAMA3, _QWEN2 = (
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in ("{1,3}", "")
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cuts:
    """Where words begin.

    Attributes:
        allowed: bool, [65536]: whether a cut is sure between bytes x and y, at x + 256 * y.
        after_newline: whether one is sure between a newline and what is no white space, where the table cannot tell:
            `any` newline, or a `lone` one, with no white space before it.
        opening, following: the space before texts that open a conversation, and that follow a control token.
        equals_space: characters that are spaces to this tokenizer.
        plain_if: a conversation that holds one of these cannot be taken apart.
        separator: a character that is always one token by itself.
    """

    allowed: npt.NDArray[np.bool_]
    after_newline: Literal["any", "lone"] | None = None
    opening: Lead = "never"
    following: Lead = "never"
    equals_space: bytes = b""
    plain_if: tuple[bytes, ...] = ()
    separator: str | None = None

    def words(self, text: bytes) -> npt.NDArray[np.int32]:
        """Offsets at which words begin, in ascending order, and the length of the text as the last."""
        size = len(text)
        first = np.ones(size + 1, dtype=bool)
        for parity in (0, 1):  # pairs of neighbors as numbers, without copying: those at even offsets, at odd ones
            pairs = np.frombuffer(text, "<u2", count=max(0, size - parity) // 2, offset=parity if size > parity else 0)
            first[parity + 1 : parity + 1 + 2 * len(pairs) : 2] = np.take(self.allowed, pairs)
        if self.after_newline:
            places = self._after_newlines(np.frombuffer(text, np.uint8))
            first[places] = True
        return np.flatnonzero(first).astype(np.int32)

    def _after_newlines(self, text: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        padded = np.concatenate([text, np.array([MARK] * 3, np.uint8)]).astype(np.int64)  # three bytes to look at
        newlines = np.flatnonzero(text == _NEWLINE)
        if self.after_newline == "lone":
            newlines = newlines[(newlines == 0) | _ENDS_NO_SPACE[text[newlines - 1]]]
        places = newlines + 1
        code = (padded[places] << 16) + (padded[places + 1] << 8) + padded[places + 2]
        wide = np.isin(code, _WIDE_SPACE_CODES) | np.isin(code & 0xFFFF00, _WIDE_SPACE_CODES)
        sure: npt.NDArray[np.int64] = places[~wide & _BEGINS_NO_ASCII_SPACE[padded[places]]]
        return sure


def find_cuts(opening: Mapping[str, Any], following: Mapping[str, Any], *, special_is_text: bool) -> Cuts | str:
    """The cuts that a tokenizer allows, or why none is sure.

    Args:
        opening: `tokenizer.json` as parsed, for texts that open a conversation.
        following: likewise, for texts that follow a control token.
        special_is_text: special tokens typed in a text stay text.
    """
    model = opening["model"]
    odd = [name for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    if model.get("type") != "BPE" or odd:
        return " ".join(["the model is", str(model.get("type")), *(f"with {name}" for name in odd)])
    typed = [token for token in opening.get("added_tokens", ()) if not (token["special"] and special_is_text)]
    return _llama(opening, following, typed) if is_llama(opening) else _byte_level(opening, following, typed)


def _llama(opening: Mapping[str, Any], following: Mapping[str, Any], typed: list[dict[str, Any]]) -> Cuts | str:
    model, leads = opening["model"], [lead_of(each) or "never" for each in (opening, following)]
    byte_pieces = {f"<0x{byte:02X}>" for byte in range(256)}
    if not byte_pieces <= model["vocab"].keys():
        return "not every byte is in the vocabulary"
    if model.get("ignore_merges"):
        return "the model ignores merges, and there is no pre-tokenizer"
    if any(token["normalized"] for token in typed):
        return "added tokens are looked for in normalized text"
    allowed = np.ones((256, 256), dtype=bool)
    allowed[0x80:0xC0] = False  # the second byte (here first, see `_table`) is inside a character
    for left, right in _merges(model):
        if left in byte_pieces or right in byte_pieces:
            return f"`{left}` and `{right}` merge, of which one is a byte"
        allowed[_byte(right, 0), _byte(left, -1)] = False
    starts = np.array([not 0x80 <= byte < 0xC0 for byte in range(256)])
    separators = (chr(byte) for byte in range(0x20) if allowed[byte].all() and allowed[starts, byte].all())
    return Cuts(
        allowed=_table(allowed),
        opening=leads[0],
        following=leads[1],
        equals_space=SPACE.encode(),
        plain_if=tuple(token["content"].encode() for token in typed if token["content"]),
        separator=next(separators, None),
    )


def _byte_level(opening: Mapping[str, Any], following: Mapping[str, Any], typed: list[dict[str, Any]]) -> Cuts | str:
    from tokenizers import pre_tokenizers

    normalizer = opening.get("normalizer") or {}
    if normalizer not in ({}, {"type": "NFC"}, {"type": "Sequence", "normalizers": []}):
        return f"unknown normalizer: {normalizer}"
    if {**opening, "added_tokens": None} != {**following, "added_tokens": None}:
        return "a text that opens a conversation is treated apart"
    pattern = _pattern(opening.get("pre_tokenizer") or {})
    if pattern is None:
        return f"unknown pre-tokenizer: {opening.get('pre_tokenizer')}"
    if not set(pre_tokenizers.ByteLevel.alphabet()) <= opening["model"]["vocab"].keys():
        return "not every byte is in the vocabulary"
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in typed):
        return "added tokens take white space with them"
    if normalizer and any(token["normalized"] and not token["content"].isascii() for token in typed):
        return "added tokens are looked for in normalized text"
    opens_no_word = _PUNCTUATION & (np.arange(256) != ord("'")) & (pattern == "gpt2")
    allowed = np.outer(_LETTERS, _DIGITS | opens_no_word)
    allowed |= np.outer(_DIGITS, _LETTERS | _PUNCTUATION) | np.outer(_PUNCTUATION, _LETTERS | _DIGITS)
    allowed[[ord(space) for space in " \t\v\f"]] = _ENDS_NO_SPACE
    # Punctuation takes the newlines after it along where it may open a word.
    allowed[[ord("\n"), ord("\r")]] = _ENDS_NO_SPACE if pattern == "gpt2" else _LETTERS | _DIGITS
    after_newline: Literal["any", "lone"] | None = "lone" if pattern == "gpt2" else "any"
    # A cut must not go through an added token. Neither through one that stays text: no other is looked for inside it.
    for token in opening.get("added_tokens", ()) if typed else ():
        content = token["content"].encode()
        for before_byte, after_byte in pairwise(content):
            allowed[after_byte, before_byte] = False
            if before_byte == _NEWLINE:
                after_newline = None
    return Cuts(allowed=_table(allowed), after_newline=after_newline)


def _pattern(splitter: Mapping[str, Any]) -> Literal["gpt2", "words"] | None:
    """Which of the known patterns cuts texts into words; `words` lets punctuation open a word."""
    parts = splitter.get("pretokenizers", [splitter])
    known = [{name: value for name, value in part.items() if name != "trim_offsets"} for part in parts]
    if known in ([_GPT2], [_DIGITS_APART, _GPT2]):
        return "gpt2"
    return "words" if known in ([_split_at(pattern), _BYTES_ONLY] for pattern in (_LLAMA3, _QWEN2)) else None


def _split_at(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _byte(piece: str, place: int) -> int:
    return piece.replace(SPACE, " ").encode()[place]


def _table(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A table by (byte after the cut, byte before it), made flat; cuts around marks are always sure."""
    allowed[MARK] = allowed[:, MARK] = True
    return allowed.ravel()
