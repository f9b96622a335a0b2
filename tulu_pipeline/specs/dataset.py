"""What an instruction dataset is: where its raw rows come from and how one becomes a conversation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.errors import unknown_name


@dataclass(frozen=True, slots=True)
class RawRow:
    """One raw row as the original file holds it.

    Attributes:
        row_id: unique in the dataset and stable, usually the row's number.
        where: file and line (or index), for people.
        value: the parsed row (a dict, a list of fields).
    """

    row_id: str
    where: str
    value: object


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that could not even be read; `text` is its beginning."""

    row_id: str
    where: str
    reason: str
    text: str = ""


class RowDropped(Exception):
    """Raised by `convert` for a row that cannot be a conversation; the message is the reason, as a short phrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCounts:
    """The dataset's row of Table 1 in the paper (LLaMA tokens, means per message)."""

    instances: int
    mean_rounds: float
    mean_prompt_tokens: float
    mean_completion_tokens: float


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example: this raw row becomes this conversation (with the row's own random stream at seed 42)."""

    raw: RawRow
    conversation: Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """An instruction dataset.

    Attributes:
        name: id used everywhere; a variant is `name:variant`.
        module: `__name__` of the file, so that its code can be fingerprinted.
        title, citation, license, url: for people; `license` is an SPDX id where there is one.
        sources: raw files by the name `read` looks them up under.
        read: raw rows of the downloaded files, in file order, streamed.
        convert: one row to one conversation, a pure function of the row and its own random stream.
        converter_version: bumped when `read` or `convert` gives other conversations.
        paper: Table 1's row.
        sample: "2,017 of 20,022" when this is less than the original; shown wherever the name is.
        examples: worked examples, run by the tests.
        variants: other ways to make it, by variant name.
    """

    name: str
    module: str
    title: str
    citation: str
    license: str
    url: str
    sources: Mapping[str, Source]
    read: Callable[[Mapping[str, Path]], Iterator[RawRow | BrokenRow]]
    convert: Callable[[RawRow, random.Random], Conversation]
    converter_version: int
    paper: PaperCounts | None = None
    sample: str = ""
    examples: tuple[Example, ...] = ()
    variants: Mapping[str, Dataset] = field(default_factory=dict)

    def variant(self, name: str) -> Dataset:
        """The variant called `name`, named `dataset:variant`.

        Raises:
            NotFound: no such variant.
        """
        if name not in self.variants:
            raise unknown_name(f"variant of {self.name}", name, self.variants)
        return replace(self.variants[name], name=f"{self.name}:{name}")


def check_conversation(conversation: Conversation) -> None:
    """Raises RowDropped where there is nothing to answer or nobody answers.

    An empty answer stays: the original trained on its end mark, and Table 1 counts such rows.
    """
    if not any(message.role == "assistant" for message in conversation.messages):
        raise RowDropped("no assistant message")
    for message in conversation.messages:
        if message.role == "user" and not message.content.strip():
            raise RowDropped("empty user message")
