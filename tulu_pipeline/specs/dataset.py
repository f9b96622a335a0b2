"""What an instruction dataset is: where its raw rows come from and how one becomes a conversation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

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
        part: for which part of its stratum a `Draw` chose it, else "".
    """

    row_id: str
    where: str
    value: object
    part: str = ""


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that could not even be read; `text` is its beginning."""

    row_id: str
    where: str
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """What a row lost on its way into a conversation, such as a round that was too long; the row itself goes on."""

    row_id: str
    where: str
    reason: str
    text: str = ""


# Tokens of each text, as the tokenizer counts a text of its own: BOS included.
CountTokens = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Which raw rows are kept: so many of each stratum.

    Attributes:
        stratum: name of the stratum that a row belongs to.
        parts: what a stratum gives: part name to number of rows, in the order in which the parts are filled.
        sampling: `hash` keeps the smallest hashes of (seed, dataset, row id), whatever the order of the rows;
            `paper2023` replays Python's generator, seeded once, over the strata in their order, as the original did.
        ids_repeat: row ids follow from what the rows hold, so that rows that are alike have one id. Any of them may be
            kept; those kept are then told apart as `~2`, `~3` and so on, in file order.
    """

    stratum: Callable[[RawRow], str]
    parts: Callable[[str], Mapping[str, int]]
    sampling: Literal["hash", "paper2023"] = "hash"
    ids_repeat: bool = False


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
        draw: which of them are kept; None for all.
        split: what one raw row falls into before conversion (the paths of a tree, the parts of a long chat), each
            with a row id of its own; given a function that counts tokens where `splits_by_tokens`. None: itself.
        splits_by_tokens: `split` counts tokens, so the conversations follow from a tokenizer too.
        convert: one row to one conversation, a pure function of the row and its own random stream.
        converter_version: bumped when `read`, `draw`, `split` or `convert` gives other conversations.
        paper: Table 1's row.
        sample: "2,017 of 20,022" when this is less than the original; shown wherever the name is.
        id_column: the column that rows are called by, where a user named one; told when it repeats.
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
    draw: Draw | None = None
    split: Callable[[RawRow, CountTokens | None], Iterator[RawRow | BrokenRow | ChangedRow]] | None = None
    splits_by_tokens: bool = False
    paper: PaperCounts | None = None
    sample: str = ""
    id_column: str = ""
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
    """Raises RowDropped where nobody answers.

    A blank question or answer stays, since the original trained on what follows it, and Table 1 counts such rows. A
    dataset that wants none drops them in `convert`, as that of a user's own rows does.
    """
    if not any(message.role == "assistant" for message in conversation.messages):
        raise RowDropped("no assistant message")
