"""What a component's filters leave of its conversations: by license, then by language, then without repetitions."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.errors import BadInput
from tulu_pipeline.mixing.language import detectable, language_of, plain_code
from tulu_pipeline.mixing.licenses import in_words, is_allowed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_PASSED = ""
_REPEATS = {"exact": "duplicate", "near": "nearly the same"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What passes; by default everything does.

    Attributes:
        licenses: SPDX ids, whatever their case; a conversation under several needs them all, and one whose license
            is unknown never passes.
        dataset_license: of conversations that have none of their own.
        languages: ISO 639-1 codes; a conversation whose language is uncertain never passes.
        deduplicate: leave out what stood before, word for word or nearly so (see `mixing.duplicates`).
    """

    licenses: tuple[str, ...] = ()
    dataset_license: str = ""
    languages: tuple[str, ...] = ()
    deduplicate: Literal["", "exact", "near"] = ""

    def __bool__(self) -> bool:
        return bool(self.licenses or self.languages or self.deduplicate)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a conversation does not pass.

    Attributes:
        kind: what is counted: `language fr`, `duplicate`.
        earlier: place of the conversation that it repeats, or None.
        similarity: to that one.
    """

    kind: str
    earlier: int | None = None
    similarity: float = 1.0

    def reason(self, earlier_id: str) -> str:
        """In full, for people."""
        if self.earlier is None:
            return self.kind
        if self.kind == _REPEATS["exact"]:
            return f"duplicate of {earlier_id}"
        return f"nearly the same as {earlier_id} ({self.similarity:.2f})"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Which conversations pass, by their place: four bytes each, and twelve more where repetitions were sought."""

    kinds: tuple[str, ...]
    kind_of: array[int]
    earlier: npt.NDArray[np.int64] | None = None
    similarity: npt.NDArray[np.float32] | None = None

    def passed(self) -> Iterator[int]:
        """Places of the conversations that pass, in order."""
        return (place for place, kind in enumerate(self.kind_of) if self.kinds[kind] == _PASSED)

    def repeated(self) -> set[int]:
        """Places of the conversations that others repeat."""
        return set() if self.earlier is None else set(self.earlier[self.earlier >= 0].tolist())

    def __getitem__(self, place: int) -> Refused | None:
        """Why a conversation does not pass, None where it does."""
        kind = self.kinds[self.kind_of[place]]
        if kind == _PASSED:
            return None
        if self.earlier is None or self.similarity is None or self.earlier[place] < 0:
            return Refused(kind)
        return Refused(kind, int(self.earlier[place]), float(self.similarity[place]))


def judge(
    conversations: Iterable[Conversation],
    filters: Filters,
    *,
    scratch: Path,
    progress: Callable[[int, str], None] = lambda done, note: None,
) -> Verdicts:
    """Which of the conversations pass, streamed; a function of them, their order and the filters alone.

    Args:
        conversations: in order; of two that are alike the first that passed the other filters stays.
        filters: what passes.
        scratch: folder for intermediate files.
        progress: called with the number judged so far and what is done with them, "" or `compared`.

    Raises:
        BadInput: a language that no raw row tells and that cannot be detected.
    """
    from tulu_pipeline.mixing.duplicates import find_duplicates

    duplicates = find_duplicates(filters.deduplicate, scratch) if filters.deduplicate else None
    numbers, kind_of, compared = {_PASSED: 0}, array("i"), array("q")
    refuse = _Refuse(filters)
    for place, conversation in enumerate(conversations):
        kind = refuse(conversation)
        kind_of.append(numbers.setdefault(kind, len(numbers)))
        if kind == _PASSED and duplicates is not None:
            duplicates.add(conversation)
            compared.append(place)
        progress(place + 1, "")
    if duplicates is None:
        return Verdicts(tuple(numbers), kind_of)
    import numpy as np

    places = np.frombuffer(compared, dtype=np.int64)
    alike = duplicates.found(lambda done: progress(int(places[done - 1]) + 1, "compared"))
    repeats = np.flatnonzero(alike.earlier >= 0)
    earlier, similarity = np.full(len(kind_of), -1, dtype=np.int64), np.zeros(len(kind_of), dtype=np.float32)
    earlier[places[repeats]] = places[alike.earlier[repeats]]
    similarity[places[repeats]] = alike.similarity[repeats]
    number = numbers.setdefault(_REPEATS[filters.deduplicate], len(numbers))
    for place in places[repeats].tolist():
        kind_of[place] = number
    return Verdicts(tuple(numbers), kind_of, earlier, similarity)


class _Refuse:
    """Why a conversation does not pass by itself, "" where it does."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._languages = {plain_code(code) for code in filters.languages}
        self._allowed: dict[str, bool] = {}
        self._checked = False

    def __call__(self, conversation: Conversation) -> str:
        if self._filters.licenses:
            license_ = conversation.license or self._filters.dataset_license
            if license_ not in self._allowed:
                self._allowed[license_] = is_allowed(license_, self._filters.licenses)
            if not self._allowed[license_]:
                return f"license {in_words(license_)}"
        if self._languages:
            if not conversation.language and not self._checked:
                self._check_detectable()
            code = language_of(conversation)
            if code not in self._languages:
                return f"language {code or 'uncertain'}"
        return _PASSED

    def _check_detectable(self) -> None:
        unknown = sorted(self._languages - detectable())
        if unknown:
            raise BadInput(
                f"language `{unknown[0]}` cannot be detected",
                "languages of a component",
                f"known: {', '.join(sorted(detectable()))}",
            )
        self._checked = True
