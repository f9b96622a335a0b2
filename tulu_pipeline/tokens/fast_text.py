"""Marked text to token ids by way of words: cut where it is sure, tokenize each distinct word once."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from tulu_pipeline.tokens.cuts import MARK, Cuts
from tulu_pipeline.tokens.encoded import EncodedBatch, cut
from tulu_pipeline.tokens.llama_shape import Lead
from tulu_pipeline.tokens.marked_text import OPENS, MarkedText
from tulu_pipeline.tokens.word_memo import NOTHING, WordMemo

_SPACE = b" "
_Offsets = npt.NDArray[np.int64]
_Codes = npt.NDArray[np.int32]


class FastText:
    """Encodes marked text with cuts that are sure; one thread at a time.

    Args:
        cuts: of the tokenizer.
        backend: tokenizes a word as it is, with no space before it.
        id_type: of the ids.
    """

    def __init__(self, cuts: Cuts, backend: Tokenizer, id_type: type[np.unsignedinteger]) -> None:
        self._cuts = cuts
        self._memo = WordMemo(backend, cuts.separator, id_type)

    def encode(
        self, texts: MarkedText, *, bos_ids: tuple[int, ...], max_length_tokens: int
    ) -> tuple[EncodedBatch, npt.NDArray[np.bool_]]:
        """Ids and masks, and which conversations need another way: they come out empty.

        Such are those with a typed token that this tokenizer takes out of the text first, and those where what counts
        for the loss begins inside a word.
        """
        self._memo.forget_if_full()
        opens = texts.controls == OPENS
        marks = np.flatnonzero(np.frombuffer(texts.text, np.uint8) == MARK)
        other_way = _holding(texts.text, self._cuts.plain_if, marks[opens])
        starts, flags = _changes(texts)
        text, (marks, starts) = self._with_plain_spaces(texts.text, marks, starts)
        words = self._cuts.words(text)
        mark_words, start_words = np.searchsorted(words, marks), np.searchsorted(words, starts)
        inside_word = starts[words[start_words] != starts]
        other_way[np.searchsorted(marks[opens], inside_word, side="right") - 1] = True

        first_words = np.append(mark_words[opens], len(words) - 1)
        # A word has a token at least: so many words reach beyond the last token that is kept, without BOS.
        taken = np.minimum(np.diff(first_words), np.where(other_way, 0, max_length_tokens + 2))
        array = pa.Array.from_buffers(pa.binary(), len(words) - 1, [None, pa.py_buffer(words), pa.py_buffer(text)])
        codes = self._codes(array, first_words, taken)
        for lead, which in ((self._cuts.opening, opens), (self._cuts.following, ~opens)):
            self._add_leads(codes, array, mark_words[which] + 1, lead)
        there = mark_words < (first_words[:-1] + taken)[np.cumsum(opens) - 1]
        codes[mark_words[there]] = self._control_codes(texts.controls[there], bos_ids)
        lists = self._memo.ids(codes)

        token_of_word = lists.offsets.to_numpy().astype(np.int64)
        mask = np.repeat(flags, np.diff(token_of_word[np.append(start_words, len(words) - 1)])).astype(np.uint8)
        controls = there & ~opens
        mask[token_of_word[mark_words[controls]]] = texts.control_flags[controls]
        for place in range(len(bos_ids)):
            mask[token_of_word[mark_words[there & opens]] + place] = 0
        return cut(lists.values.to_numpy(), mask, token_of_word[first_words], max_length_tokens), other_way

    def _with_plain_spaces(self, text: bytes, *offsets: _Offsets) -> tuple[bytes, list[_Offsets]]:
        """The text with a space for each character that equals it, and the same places there."""
        wide = self._cuts.equals_space
        if not wide or wide not in text:
            return text, list(offsets)
        found = np.array([match.start() for match in re.finditer(re.escape(wide), text)])
        shorter = len(wide) - len(_SPACE)
        return text.replace(wide, _SPACE), [each - np.searchsorted(found, each) * shorter for each in offsets]

    def _codes(self, array: pa.Array, first_words: _Offsets, taken: _Offsets) -> _Codes:
        """The code of each word; `NOTHING` for those beyond what is taken of each conversation, and for marks."""
        if taken.sum() == len(array):
            return self._memo.codes(array)
        places = np.repeat(first_words[:-1], taken) + _positions(taken)
        codes = np.full(len(array), NOTHING, np.int32)
        codes[places] = self._memo.codes(array.take(pa.array(places)))
        return codes

    def _control_codes(self, controls: _Offsets, bos_ids: tuple[int, ...]) -> _Codes:
        distinct, inverse = np.unique(controls, return_inverse=True)
        codes = [self._memo.code_of_ids(bos_ids if control == OPENS else (control,)) for control in distinct.tolist()]
        return np.array(codes, np.int32)[inverse]

    def _add_leads(self, codes: _Codes, array: pa.Array, after_marks: _Offsets, lead: Lead) -> None:
        """Puts the space that the tokenizer adds before the words that begin a text."""
        places = after_marks[after_marks < len(array)]
        places = places[codes[places] != NOTHING]
        if lead == "never" or not len(places):
            return
        encoded = array.take(pa.array(places)).dictionary_encode()
        led = [
            word if lead == "unless_there" and word.startswith(_SPACE) else _SPACE + word
            for word in encoded.dictionary.to_pylist()
        ]
        codes[places] = self._memo.codes_of(led)[encoded.indices.to_numpy()]


def _changes(texts: MarkedText) -> tuple[_Offsets, npt.NDArray[np.bool_]]:
    """Where text begins to count or ceases to, and which of the two."""
    not_empty = np.append(np.diff(texts.starts) > 0, True)
    starts, flags = texts.starts[not_empty], texts.flags[not_empty]
    changed = np.append(True, flags[1:] != flags[:-1])
    return starts[changed], flags[changed]


def _holding(text: bytes, contents: Sequence[bytes], row_starts: _Offsets) -> npt.NDArray[np.bool_]:
    """Which conversations hold one of some texts."""
    rows = np.zeros(len(row_starts), dtype=bool)
    for content in contents:
        place = text.find(content)
        while place >= 0:
            row = int(np.searchsorted(row_starts, place, side="right")) - 1
            rows[row] = True
            place = text.find(content, int(row_starts[row + 1])) if row + 1 < len(rows) else -1
    return rows


def _positions(lengths: _Offsets) -> _Offsets:
    """0, 1, … for each of some lengths."""
    ends = np.cumsum(lengths)
    positions: _Offsets = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    return positions
