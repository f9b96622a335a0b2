"""Words to token ids: each distinct word is tokenized once and remembered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, compress, repeat
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from tulu_pipeline.tokens.cuts import MARK

_MOST_WORDS = 2**19  # about 100 MB
_MOST_IDS = 2**23
_LONGEST_BYTES = 64  # beyond it are encoded files, whose words never come again
_JOINED = 256  # so many words are tokenized in one go: fewer calls; more would make the tokenizer's queues long
NOTHING = 0  # the code of no ids
_UNKNOWN = -1
_KNOWN = {bytes([MARK]): NOTHING}  # what a mark stands for is for others to say

# All ids, one word's after the other's, and how many each word has.
_Ids = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
_Number = TypeVar("_Number", bound=np.number[Any])


class WordMemo:
    """Ids of words, in one pool; a code is a place in it.

    Args:
        backend: tokenizes a word as it is.
        separator: a character that is always one token by itself, so that words can be tokenized together.
        id_type: of the ids.
    """

    def __init__(self, backend: Tokenizer, separator: str | None, id_type: type[np.unsignedinteger]) -> None:
        self._backend = backend
        self._separator = separator.encode() if separator else None
        self._id_type = id_type
        self._codes = dict(_KNOWN)
        self._pool = _Pool(id_type)

    def forget_if_full(self) -> None:
        """Starts anew where too much is remembered; codes handed out before are void then."""
        if len(self._codes) > _MOST_WORDS or self._pool.size_ids > _MOST_IDS:
            self._codes = dict(_KNOWN)
            self._pool = _Pool(self._id_type)

    def codes(self, words: pa.Array) -> npt.NDArray[np.int32]:
        """The code of each word of a binary array, UTF-8 without nulls."""
        encoded = words.dictionary_encode()
        of_distinct = self.codes_of(encoded.dictionary.to_pylist())
        codes: npt.NDArray[np.int32] = of_distinct[encoded.indices.to_numpy()]
        return codes

    def codes_of(self, words: Sequence[bytes]) -> npt.NDArray[np.int32]:
        """The code of each word, repeated or not."""
        codes = np.fromiter(map(self._codes.get, words, repeat(_UNKNOWN)), np.int32, len(words))
        unknown = codes == _UNKNOWN
        if unknown.any():
            codes[unknown] = self._learn(list(compress(words, unknown.tolist())))
        return codes

    def code_of_ids(self, ids: Sequence[int]) -> int:
        """The code of given ids, which need not be those of a word."""
        key = bytes([MARK]) + repr(tuple(ids)).encode()  # no word is so
        if key not in self._codes:
            self._codes[key] = int(self._pool.add(np.array(ids, np.int64), np.array([len(ids)]))[0])
        return self._codes[key]

    def ids(self, codes: npt.NDArray[np.int32]) -> pa.ListArray:
        """The ids behind codes, a list for each."""
        return self._pool.lists().take(pa.array(codes))

    def _learn(self, words: list[bytes]) -> npt.NDArray[np.int32]:
        codes = self._pool.add(*(self._together(words) or self._one_by_one(map(bytes.decode, words))))
        known = zip(words, codes.tolist(), strict=True)
        self._codes.update((word, code) for word, code in known if len(word) <= _LONGEST_BYTES)
        return codes

    def _together(self, words: list[bytes]) -> _Ids | None:
        """Many words in one text, where a separator tells their tokens apart."""
        separator = self._separator
        if separator is None:
            return None
        texts = [separator.join([b"", *words[at : at + _JOINED]]) for at in range(0, len(words), _JOINED)]
        if sum(text.count(separator) for text in texts) != len(words):
            return None  # the separator itself is among the words
        ids, _ = self._one_by_one(map(bytes.decode, texts))
        is_separator = ids == ids[0]
        lengths = np.diff(np.flatnonzero(is_separator), append=len(ids)) - 1
        return ids[~is_separator], lengths

    def _one_by_one(self, texts: Iterable[str]) -> _Ids:
        found = [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        return np.fromiter(chain.from_iterable(found), np.int64, int(lengths.sum())), lengths


class _Pool:
    """Lists of ids, one after the other, in arrays that grow."""

    def __init__(self, id_type: type[np.unsignedinteger]) -> None:
        self._ids = np.zeros(2**16, id_type)
        self._ends = np.zeros(2**16, np.int32)
        self._lists = 1  # `NOTHING`

    @property
    def size_ids(self) -> int:
        return int(self._ends[self._lists])

    def add(self, ids: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Appends so many lists; their codes."""
        first, size = self._lists, self.size_ids
        self._lists += len(lengths)
        self._ids = _with_room(self._ids, size + len(ids))
        self._ends = _with_room(self._ends, self._lists + 1)
        self._ids[size : size + len(ids)] = ids
        self._ends[first + 1 : self._lists + 1] = size + np.cumsum(lengths)
        return np.arange(first, self._lists, dtype=np.int32)

    def lists(self) -> pa.ListArray:
        """All lists, without copying."""
        return pa.ListArray.from_arrays(pa.array(self._ends[: self._lists + 1]), pa.array(self._ids[: self.size_ids]))


def _with_room(array: npt.NDArray[_Number], size: int) -> npt.NDArray[_Number]:
    if size <= len(array):
        return array
    grown = np.zeros(max(size, 2 * len(array)), array.dtype)
    grown[: len(array)] = array
    return grown
