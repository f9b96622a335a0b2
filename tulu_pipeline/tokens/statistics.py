"""What a dataset holds, counted in one pass: instances, rounds, tokens by role, lengths, and what training would see.

Rounds and tokens are counted as for Table 1 of the paper (open-instruct's `get_statistics.py`): rounds are half the
messages; the tokens of a message are those of its content as it stands, without special tokens, averaged over the
messages of a role; the length of a conversation is the sum over its user and assistant messages, without the template.
"""

from __future__ import annotations

import heapq
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tulu_pipeline.errors import BadInput, Tampered

if TYPE_CHECKING:
    from tulu_pipeline.chat.schema import Conversation
    from tulu_pipeline.tokens.encode import Encoded
    from tulu_pipeline.tokens.tokenizer import ChatTokenizer

    Encode = Callable[[Sequence[Conversation]], Sequence[Encoded | BadInput]]

FILE = "statistics.json"
SCHEMA_VERSION = 1
# Upper ends of the bins of the length histogram, inclusive; half octaves, through the lengths that the original
# counted. One more bin holds what is longer than the last.
LENGTH_BINS: Final = (
    4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192
)  # fmt: skip
LONG_TOKENS: Final = (512, 768, 1024, 1536, 2048, 4096)
_LONGEST = 10
_CONVERSATIONS_PER_BATCH = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Longest:
    """A long conversation: its id and the tokens of its messages."""

    id: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The counts of one dataset.

    Attributes:
        dataset: its name.
        tokenizer_fingerprint: of the tokenizer that counted.
        instances: conversations.
        mean_rounds: messages / 2, averaged.
        mean_prompt_tokens, mean_completion_tokens: per user and per assistant message; None where there is none.
        messages, message_tokens: totals by role.
        rounds: (messages / 2, conversations), ascending.
        lengths: conversations per bin of `LENGTH_BINS`, and those beyond.
        longer_than: conversations longer than each of `LONG_TOKENS`.
        longest: the ten longest, longest first.
        max_length_tokens: what training would cut to.
        tokens, supervised_tokens: what training would then see in an epoch, template included.
        truncated: conversations that are cut.
        nothing_to_learn: conversations that training leaves out: the cut leaves nothing supervised, or the chat
            template refuses them. They are no part of the tokens.
        licenses, languages: conversations by what their rows say of themselves; rows that say nothing are not in it.
        dropped, changed: rows by reason, on the way from the raw file.
    """

    dataset: str
    tokenizer_fingerprint: str
    instances: int
    mean_rounds: float
    mean_prompt_tokens: float | None
    mean_completion_tokens: float | None
    messages: Mapping[str, int]
    message_tokens: Mapping[str, int]
    rounds: tuple[tuple[float, int], ...]
    lengths: tuple[int, ...]
    longer_than: Mapping[str, int]
    longest: tuple[Longest, ...]
    max_length_tokens: int
    tokens: int
    supervised_tokens: int
    truncated: int
    nothing_to_learn: int
    licenses: Mapping[str, int]
    languages: Mapping[str, int]
    dropped: Mapping[str, int]
    changed: Mapping[str, int]
    schema_version: int = SCHEMA_VERSION


def count(
    conversations: Iterable[Conversation],
    tokenizer: ChatTokenizer,
    encode: Encode,
    *,
    dataset: str,
    max_length_tokens: int,
    dropped: Mapping[str, int],
    changed: Mapping[str, int],
    on_progress: Callable[[int], None] = lambda done: None,
) -> Statistics:
    """The statistics of a dataset; one batch of it is in memory at a time.

    Args:
        conversations: all of them.
        tokenizer: counts.
        encode: as training would; a conversation that the chat template refuses becomes the error that says why.
        dataset: its name.
        max_length_tokens: where `encode` cuts.
        dropped: rows that became no conversation, by reason.
        changed: rows that lost something, by reason.
        on_progress: told how many conversations are done.
    """
    totals = _Totals()
    rest = iter(conversations)
    while batch := list(islice(rest, _CONVERSATIONS_PER_BATCH)):
        totals.add(batch, tokenizer, encode)
        on_progress(totals.instances)
    messages, tokens = totals.messages, totals.message_tokens
    return Statistics(
        dataset=dataset,
        tokenizer_fingerprint=tokenizer.fingerprint,
        instances=totals.instances,
        mean_rounds=messages.total() / 2 / totals.instances if totals.instances else 0.0,
        mean_prompt_tokens=tokens["user"] / messages["user"] if messages["user"] else None,
        mean_completion_tokens=tokens["assistant"] / messages["assistant"] if messages["assistant"] else None,
        messages=dict(messages),
        message_tokens=dict(tokens),
        rounds=tuple((number / 2, found) for number, found in sorted(totals.sizes.items())),
        lengths=tuple(totals.lengths[index] for index in range(len(LENGTH_BINS) + 1)),
        longer_than={
            str(long): sum(totals.lengths[index] for index in range(LENGTH_BINS.index(long) + 1, len(LENGTH_BINS) + 1))
            for long in LONG_TOKENS
        },
        longest=tuple(Longest(id=name, tokens=length) for length, _, name in sorted(totals.longest, reverse=True)),
        max_length_tokens=max_length_tokens,
        tokens=totals.tokens,
        supervised_tokens=totals.supervised_tokens,
        truncated=totals.truncated,
        nothing_to_learn=totals.nothing_to_learn,
        licenses=dict(totals.licenses),
        languages=dict(totals.languages),
        dropped=dict(dropped),
        changed=dict(changed),
    )


def write_statistics(statistics: Statistics, folder: Path) -> None:
    """Write `statistics.json`; the same statistics give the same bytes."""
    text = json.dumps(asdict(statistics), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_statistics(folder: Path) -> Statistics:
    """The statistics of a folder.

    Raises:
        Tampered: the file is not there, or is none of this schema.
    """
    from pydantic import TypeAdapter, ValidationError

    path = folder / FILE
    try:
        found = TypeAdapter(Statistics).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise Tampered(
            f"statistics cannot be read: {error}", str(path), "`tulu verify` names what is damaged"
        ) from error
    if found.schema_version != SCHEMA_VERSION:
        raise Tampered(f"statistics of schema {found.schema_version}", str(path), "make them anew: --refresh describe")
    return found


class _Totals:
    """What adds up from batch to batch."""

    def __init__(self) -> None:
        self.instances = self.tokens = self.supervised_tokens = self.truncated = self.nothing_to_learn = 0
        self.messages: Counter[str] = Counter()
        self.message_tokens: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()  # conversations by number of messages
        self.lengths: Counter[int] = Counter()  # conversations by bin
        self.longest: list[tuple[int, int, str]] = []  # (tokens, -position, id), a heap
        self.licenses: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()

    def add(self, batch: Sequence[Conversation], tokenizer: ChatTokenizer, encode: Encode) -> None:
        texts = [message.content for conversation in batch for message in conversation.messages]
        counts = iter(tokenizer.count_tokens(texts))
        for conversation, encoded in zip(batch, encode(batch), strict=True):
            length = 0
            for message in conversation.messages:
                tokens = next(counts) - len(tokenizer.bos_ids)
                self.messages[message.role] += 1
                self.message_tokens[message.role] += tokens
                length += tokens if message.role != "system" else 0
            self.sizes[len(conversation.messages)] += 1
            self.lengths[bisect_left(LENGTH_BINS, length)] += 1
            self._remember(length, conversation.id)
            if conversation.license:
                self.licenses[conversation.license] += 1
            if conversation.language:
                self.languages[conversation.language] += 1
            if isinstance(encoded, BadInput):
                self.nothing_to_learn += 1
                continue
            supervised = int(encoded.loss_mask.sum())
            self.truncated += encoded.truncated
            self.nothing_to_learn += not supervised
            self.tokens += len(encoded.input_ids) if supervised else 0
            self.supervised_tokens += supervised

    def _remember(self, length: int, name: str) -> None:
        entry = (length, -self.instances, name)
        self.instances += 1
        if len(self.longest) < _LONGEST:
            heapq.heappush(self.longest, entry)
        else:
            heapq.heappushpop(self.longest, entry)
