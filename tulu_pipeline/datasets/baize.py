"""Baize: 210,311 dialogues that ChatGPT held with itself, each begun by a question of Alpaca, a forum or MedQuAD.

License: LicenseRef-research-only (the repository: data for research use only, commercial use prohibited).
Citation: Xu et al., "Baize: An Open-Source Chat Model with Parameter-Efficient Tuning on Self-Chat Data",
arXiv:2304.01196.
Source: github.com/project-baize/baize-chatbot, `data/{alpaca,medical,quora,stackoverflow}_chat_data.json` at commit
7861029.
Size: 210,311 rows; Table 1 has 210,311 with 3.1 rounds, 17.6 tokens per prompt and 52.8 per completion.
Format: JSON arrays of objects with `topic` and `input`, one string: a preamble, then `[|Human|]` and `[|AI|]` before
each turn, usually with a last empty `[|Human|]`.
Variants: `sample`, 96 rows of the Quora file that another project translated into Korean: good for the format alone.

Deviations from the paper: a part between two `[|Human|]` marks with more than one `[|AI|]` is left out, where the
original stopped with an exception, and so is one without a question, which it kept; a dialogue without any round is
dropped, which it wrote without messages. Each such loss is told.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.fields import object_of, text_of
from tulu_pipeline.raw.readers import read_json_arrays
from tulu_pipeline.specs.dataset import (
    BrokenRow,
    ChangedRow,
    CountTokens,
    Dataset,
    Example,
    PaperCounts,
    RawRow,
    RowDropped,
)

_HUMAN, _AI = "[|Human|]", "[|AI|]"


def _rounds(value: object) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The rounds of a dialogue as (question, answer), and what is none as (reason, text).

    Raises:
        RowDropped: the row has no dialogue.
    """
    rounds, lost = [], []
    for part in text_of(object_of(value), "input").split(_HUMAN)[1:]:
        question, *answers = (turn.strip() for turn in part.split(_AI))
        if len(answers) == 1 and question:
            rounds.append((question, answers[0]))
        elif answers or question:
            reason = f"{len(answers) or 'no'} `{_AI}` after a `{_HUMAN}`" if question else f"empty `{_HUMAN}`"
            lost.append((reason, part.strip()))
    if not rounds:
        raise RowDropped(f"no round with `{_HUMAN}` and `{_AI}`")
    return rounds, lost


def _split(row: RawRow, count_tokens: CountTokens | None) -> Iterator[RawRow | BrokenRow | ChangedRow]:
    """The row as it is, behind what is lost of it."""
    try:
        lost = _rounds(row.value)[1]
    except RowDropped:
        lost = []  # the conversion tells
    for reason, text in lost:
        yield ChangedRow(row.row_id, row.where, reason, text)
    yield row


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    messages: list[Message] = []
    for question, answer in _rounds(row.value)[0]:
        messages += (Message("user", question), Message("assistant", answer))
    return Conversation("baize", f"baize_{row.row_id}", tuple(messages))


_FOLDER = "https://raw.githubusercontent.com/project-baize/baize-chatbot/786102995acd62bead1cfe947969639443999b79/data"
_PARTS = ("alpaca", "medical", "quora", "stackoverflow")

_FULL = Dataset(
    name="baize",
    module=__name__,
    title="Baize",
    citation='Xu et al., "Baize: An Open-Source Chat Model with Parameter-Efficient Tuning on Self-Chat Data", 2023',
    license="LicenseRef-research-only",
    url="https://github.com/project-baize/baize-chatbot",
    sources={f"{part}_chat_data.json": PinnedFile(url=f"{_FOLDER}/{part}_chat_data.json") for part in _PARTS},
    read=read_json_arrays,
    split=_split,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=210_311, mean_rounds=3.1, mean_prompt_tokens=17.6, mean_completion_tokens=52.8),
    examples=(
        Example(
            RawRow(
                "0",
                "alpaca_chat_data.json:1",
                {
                    "topic": "Which bird lays the largest egg?",
                    "input": "A human talks with an assistant.\n"
                    "[|Human|] Which bird lays the largest egg?\n[|AI|] The ostrich does.\n"
                    "[|Human|] How heavy is it?\n[|AI|] About 1.4 kilograms.\n[|Human|] ",
                },
            ),
            Conversation(
                "baize",
                "baize_0",
                (
                    Message("user", "Which bird lays the largest egg?"),
                    Message("assistant", "The ostrich does."),
                    Message("user", "How heavy is it?"),
                    Message("assistant", "About 1.4 kilograms."),
                ),
            ),
        ),
    ),
)

DATASET = replace(
    _FULL,
    variants={
        "sample": replace(
            _FULL,
            title="Baize (96 rows, translated into Korean)",
            sources={
                "quora_chat_data.json": PinnedFile(
                    url="https://raw.githubusercontent.com/quantumaikr/deepbot/019d05fecbe53437917b6c830246bb1aaf1741d2/data/quora_chat_data.json",
                    sha256="76bab7e3cef13db57ab91c5727bcc2482ae9087018620b93e97dee25e24e9fcd",
                )
            },
            sample="96 of 210,311",
            paper=None,
        )
    },
)
