"""Running out of memory: told from other errors, and answered by smaller batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# As torch, its CPU allocator, CUDA's libraries and vLLM say it.
_WORDS = (
    "out of memory",
    "outofmemoryerror",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """An item that memory does not hold even alone, and the error's words."""

    reason: str


class Batches(Generic[Item, Result]):
    """Batches as large as memory allows, found by trying; what was learned holds for all that follows.

    Attributes:
        note: what a person should know; "" while nothing ran out.
    """

    def __init__(self, most: int, size_of: Callable[[Item], int]) -> None:
        """Begin with `most` items in a batch.

        Args:
            most: items in a batch, at most.
            size_of: what an item takes, in any unit; a batch takes as much as if all were like its largest.
        """
        self._most, self._size_of = most, size_of
        self._limit: int | None = None  # sizes of a batch together
        self.note = ""

    def run(
        self, items: Iterable[Item], work: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result | TooLarge]]:
        """What `work` makes of each batch of `items`, in their order.

        A batch for which memory runs out is halved, and those that follow are no larger; `work` is then called again
        with the same items, so it must leave nothing behind when it raises.
        """
        waiting, held = iter(items), list[Item]()
        while True:
            held += islice(waiting, self._most - len(held))
            if not held:
                return
            batch = held[: self._fitting(held)]
            result = _tried(work, batch)
            if isinstance(result, TooLarge) and len(batch) > 1:
                self._limit = len(batch) // 2 * max(map(self._size_of, batch))
                self.note = f"out of memory with {len(batch)} at a time, going on with {len(batch) // 2}"
                continue
            del held[: len(batch)]
            yield batch, result

    def _fitting(self, items: Sequence[Item]) -> int:
        """How many of the first items make a batch."""
        largest = 0
        for count, item in enumerate(items, start=1):
            largest = max(largest, self._size_of(item))
            if count > 1 and self._limit is not None and count * largest > self._limit:
                return count - 1
        return len(items)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and tells_of_memory(_words(error)))


def tells_of_memory(text: str) -> bool:
    """Whether an error's words, or a log's, say that memory ran out."""
    folded = text.lower()
    return any(words in folded for words in _WORDS)


def _tried(work: Callable[[Sequence[Item]], Result], batch: Sequence[Item]) -> Result | TooLarge:
    """Returns only when the error is gone, and with it the tensors that its traceback holds."""
    try:
        return work(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return TooLarge(_words(error).splitlines()[0])


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
