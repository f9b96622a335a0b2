"""Conversations that stood before: word for word, or nearly so. The first of them stays.

Exact: equal roles and equal contents, but for white space around a content.

Near: equal in at least four of five of their word triples, counted together (Jaccard similarity 0.8). MinHash makes
candidates of conversations that are likely to be so alike; each is then compared by its triples, so that nothing is
left out by mistake. A pair just at the threshold is found with probability 0.99. One is compared with those that stay
alone, in order, so whatever is left out has one that it resembles among what stays.

Conversations that meet in no bucket cost nothing more. Where all of n share a long part, such as one preamble, each
pair of those that stay meets: then n²/2 pairs are held against each other, about 100 nanoseconds each, and nearly none
is compared by its triples.

Conversations that share long text, such as questions on one passage, are alike in this sense.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from tulu_pipeline.chat.schema import Conversation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

THRESHOLD = 0.8
_WORDS_PER_SHINGLE = 3
# A pair of similarity s meets in a band with probability 1 - (1 - s^rows)^bands: 0.99 at 0.8, 0.15 at 0.5.
_BANDS, _ROWS_PER_BAND = 20, 7
# Of a pair that meets, so many of the 140 minima must be equal before its triples are compared: among long texts with a
# part in common nearly all pairs meet. At similarity 0.8 fewer are equal in 5 of a million cases.
_LEAST_EQUAL = 91
# Two sets differ in at least as many elements as their parities, of how many elements fall in each of so many places.
_PARITIES = 1024
_SEED = 1
_SHINGLES_AT_ONCE = 8192
_WORDS_REMEMBERED = 1 << 20
# Scripts that put no spaces between words: each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Alike:
    """What duplicates were found.

    Attributes:
        earlier: for each conversation the place of the one that it repeats, -1 where it repeats none.
        similarity: how much they are alike.
    """

    earlier: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]


class Duplicates(Protocol):
    """Takes conversations one by one, then says which of them repeat an earlier one."""

    def add(self, conversation: Conversation) -> None: ...
    def found(self, progress: Callable[[int], None] = ...) -> Alike: ...


def _no_progress(compared: int) -> None:
    """Tells nobody."""


def find_duplicates(kind: Literal["exact", "near"], scratch: Path) -> Duplicates:
    """What finds duplicates of this kind; near ones need room in the folder `scratch` (8 bytes a word)."""
    return ExactDuplicates() if kind == "exact" else NearDuplicates(scratch)


class ExactDuplicates:
    """Equal messages; 16 bytes of memory a conversation."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def add(self, conversation: Conversation) -> None:
        messages = [[message.role, message.content.strip()] for message in conversation.messages]
        text = json.dumps(messages).encode()
        self._digests += hashlib.blake2b(text, digest_size=16).digest()

    def found(self, progress: Callable[[int], None] = _no_progress) -> Alike:
        import numpy as np

        first = _first_of_equal(np.frombuffer(bytes(self._digests), dtype=np.uint64).reshape(-1, 2))
        earlier = np.where(first == np.arange(len(first)), -1, first)
        return Alike(earlier, (earlier >= 0).astype(np.float32))


class NearDuplicates:
    """Nearly equal words; 430 bytes of memory a conversation, and its shingles in a scratch file.

    `datasketch` gives the MinHash. Its index of bands is not used: it takes 6.5 KB a conversation.
    """

    def __init__(self, scratch: Path) -> None:
        from datasketch import MinHash

        scratch.mkdir(parents=True, exist_ok=True)
        self._path = scratch / "shingles.bin"
        self._file = self._path.open("wb")
        self._ends = array("q", [0])
        self._bands = bytearray()
        self._minima = bytearray()  # their lowest bytes
        self._parities = bytearray()
        self._words = _WordHashes()
        self._empty = MinHash(num_perm=_BANDS * _ROWS_PER_BAND, seed=_SEED, hashfunc=int)
        self._in_band = _odd_numbers(_ROWS_PER_BAND)
        self._in_shingle = _odd_numbers(_WORDS_PER_SHINGLE)

    def add(self, conversation: Conversation) -> None:
        import numpy as np

        shingles = self._shingles(conversation)
        self._file.write(shingles.tobytes())
        self._ends.append(self._ends[-1] + len(shingles))
        sketch = self._empty.copy()
        for start in range(0, len(shingles), _SHINGLES_AT_ONCE):
            sketch.update_batch((shingles[start : start + _SHINGLES_AT_ONCE] >> 32).tolist())
        self._minima += sketch.hashvalues.astype(np.uint8).tobytes()
        in_place = np.bincount((shingles >> (64 - (_PARITIES - 1).bit_length())).astype(np.int64), minlength=_PARITIES)
        self._parities += np.packbits((in_place & 1).astype(np.uint8)).tobytes()
        rows = sketch.hashvalues.astype(np.uint64).reshape(_BANDS, _ROWS_PER_BAND)
        self._bands += (rows * self._in_band).sum(axis=1, dtype=np.uint64).tobytes()

    def found(self, progress: Callable[[int], None] = _no_progress) -> Alike:
        import numpy as np

        self._file.close()
        count = len(self._ends) - 1
        earlier, similarity = np.full(count, -1, dtype=np.int64), np.zeros(count, dtype=np.float32)
        if count:
            shingles = np.memmap(self._path, dtype=np.uint64, mode="r")
            bands = np.frombuffer(bytes(self._bands), dtype=np.uint64).reshape(count, _BANDS)
            self._compare(shared_buckets(bands), shingles, earlier, similarity, progress)
            del shingles
        self._path.unlink()
        return Alike(earlier, similarity)

    def _compare(
        self,
        buckets: npt.NDArray[np.int64],
        shingles: npt.NDArray[np.uint64],
        earlier: npt.NDArray[np.int64],
        similarity: npt.NDArray[np.float32],
        progress: Callable[[int], None],
    ) -> None:
        """Compare each conversation with those that stay and meet it in a bucket, the first of them first."""
        import numpy as np

        shared: npt.NDArray[np.bool_] = np.any(buckets >= 0, axis=1)
        staying: dict[tuple[int, int], array[int]] = {}
        meets = np.zeros(len(buckets), dtype=bool)
        likely = _Likely(self._ends, self._parities, self._minima)
        for row in range(len(buckets)):
            progress(row + 1)
            if not shared[row]:
                continue
            own = [(band, bucket) for band, bucket in enumerate(buckets[row].tolist()) if bucket >= 0]
            for bucket in own:
                if bucket in staying:
                    meets[np.frombuffer(staying[bucket], dtype=np.int64)] = True
            met = np.flatnonzero(meets[:row])
            meets[met] = False
            for candidate in likely(row, met).tolist():
                alike = self._jaccard(shingles, row, candidate)
                if alike >= THRESHOLD:
                    earlier[row], similarity[row] = candidate, alike
                    break
            else:
                for bucket in own:
                    staying.setdefault(bucket, array("q")).append(row)

    def _jaccard(self, shingles: npt.NDArray[np.uint64], one: int, other: int) -> float:
        import numpy as np

        ends = self._ends
        sizes = ends[one + 1] - ends[one], ends[other + 1] - ends[other]
        first, second = (shingles[ends[row] : ends[row + 1]] for row in (one, other))
        both = len(np.intersect1d(first, second, assume_unique=True))
        return both / (sum(sizes) - both)

    def _shingles(self, conversation: Conversation) -> npt.NDArray[np.uint64]:
        """Hashes of the word triples, sorted, each once; a role is a word of its own."""
        import numpy as np

        words = [
            word
            for message in conversation.messages
            for word in (f"<{message.role}>", *_WORD.findall(message.content.lower()))
        ]
        words += ["<end>"] * (_WORDS_PER_SHINGLE - len(words))
        hashes = self._words.of(words)
        count = len(hashes) - _WORDS_PER_SHINGLE + 1
        total = np.zeros(count, dtype=np.uint64)
        for place, factor in enumerate(self._in_shingle):
            total += hashes[place : place + count] * factor
        total ^= total >> 31
        distinct: npt.NDArray[np.uint64] = np.unique(total * self._in_shingle[0])
        return distinct


class _Likely:
    """Which of the candidates may be alike, by their sizes, parities and minima, of all candidates at once."""

    def __init__(self, ends: array[int], parities: bytearray, minima: bytearray) -> None:
        import numpy as np

        self._sizes = np.diff(np.array(ends, dtype=np.int64))
        self._parities = np.frombuffer(bytes(parities), dtype=np.uint64).reshape(-1, _PARITIES // 64)
        self._minima = np.frombuffer(bytes(minima), dtype=np.uint8).reshape(-1, _BANDS * _ROWS_PER_BAND)

    def __call__(self, row: int, met: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        import numpy as np

        own, sizes = self._sizes[row], self._sizes[met]
        # J = both / (sum - both) and both = (sum - differing) / 2, so J >= t means differing <= sum (1 - t) / (1 + t).
        may_differ = (own + sizes) * (1 - THRESHOLD) / (1 + THRESHOLD) + 1e-6
        differing = np.bitwise_count(self._parities[met] ^ self._parities[row]).sum(axis=1, dtype=np.int64)
        met = met[(np.abs(own - sizes) <= may_differ) & (differing <= may_differ)]
        equal = (self._minima[met] == self._minima[row]).sum(axis=1)
        likely: npt.NDArray[np.int64] = met[equal >= _LEAST_EQUAL]
        return likely


def shared_buckets(bands: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each row and band the first row with the same value there, -1 where no other row has it."""
    import numpy as np

    buckets = np.empty(bands.shape, dtype=np.int64)
    for band in range(bands.shape[1]):
        first = _first_of_equal(bands[:, band : band + 1])
        alone = np.bincount(first, minlength=len(first))[first] == 1
        buckets[:, band] = np.where(alone, -1, first)
    return buckets


class _WordHashes(dict[str, int]):
    """64-bit hashes of words, remembered."""

    def of(self, words: list[str]) -> npt.NDArray[np.uint64]:
        import numpy as np

        if len(self) > _WORDS_REMEMBERED:
            self.clear()
        return np.fromiter(map(self.__getitem__, words), np.uint64, len(words))

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = int.from_bytes(digest)
        return self[word]


def _first_of_equal(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each row the number of the first row that equals it: its own where none stood before."""
    import numpy as np

    order = np.lexsort(keys.T)  # stable: equal rows stay in their order
    ordered = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[starts]
    return first


def _odd_numbers(count: int) -> npt.NDArray[np.uint64]:
    """Random odd factors, the same ones every time."""
    import numpy as np

    digests = [hashlib.blake2b(str(number).encode(), digest_size=8).digest() for number in range(count)]
    return np.array([int.from_bytes(digest) | 1 for digest in digests], dtype=np.uint64)
