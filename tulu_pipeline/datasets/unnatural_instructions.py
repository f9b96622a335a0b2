"""Unnatural Instructions: 68,478 instances of instructions that GPT-3 (text-davinci-002) wrote from 15 seed examples.

License: MIT (the repository's LICENSE).
Citation: Honovich et al., "Unnatural Instructions", arXiv:2212.09689.
Source: github.com/orhonovich/unnatural-instructions, `data/core_data.zip` at commit 22a41c9, read in place.
Size: 68,478 instances; Table 1 has 68,478 with 1.0 rounds, 107.8 tokens per prompt and 23.6 per completion.
Format: in the archive, JSON lines with `instruction` and `instances`, each with `input`, `constraints` on the answer
    (or words for none), `output`, and `instruction_with_input`, which is not used.

As in the original, an instance is a conversation of its own, and its constraints are the instruction's second line,
unless they are empty, null, or "none" or "none." in whatever case.

Deviations from the paper: templates are drawn per row, not from one stream for the whole process. Ids name the line
and the instance; the original numbered the instances through.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.fields import object_of, text_of
from tulu_pipeline.raw.instances import split_instances
from tulu_pipeline.raw.instructions import instruction_messages
from tulu_pipeline.raw.readers import json_lines
from tulu_pipeline.raw.zipped import ZipFolder
from tulu_pipeline.specs.dataset import BrokenRow, Dataset, Example, PaperCounts, RawRow

_ARCHIVE, _MEMBER = "core_data.zip", "core_data.jsonl"
_NO_CONSTRAINTS = ("", "none", "none.")


def _read(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    with ZipFolder(_ARCHIVE, files[_ARCHIVE]) as folder:
        yield from json_lines(_MEMBER, folder.lines(folder.find(_MEMBER)))


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    fields = object_of(row.value)
    instruction, given, output = (text_of(fields, key) for key in ("instruction", "input", "output"))
    constraints = text_of(fields, "constraints") if fields.get("constraints") is not None else ""
    if constraints.lower() not in _NO_CONSTRAINTS:
        instruction = f"{instruction}\n{constraints}"
    messages = instruction_messages(instruction, given, output, rng)
    return Conversation("unnatural_instructions", f"unnatural_instructions_{row.row_id}", messages)


DATASET = Dataset(
    name="unnatural_instructions",
    module=__name__,
    title="Unnatural Instructions",
    citation='Honovich et al., "Unnatural Instructions: Tuning Language Models with (Almost) No Human Labor", 2022',
    license="MIT",
    url="https://github.com/orhonovich/unnatural-instructions",
    sources={
        _ARCHIVE: PinnedFile(
            url="https://raw.githubusercontent.com/orhonovich/unnatural-instructions/22a41c945a8b0f88d8254def75d574c53f1221be/data/core_data.zip"
        )
    },
    read=_read,
    split=split_instances,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=68_478, mean_rounds=1.0, mean_prompt_tokens=107.8, mean_completion_tokens=23.6),
    examples=(
        Example(
            RawRow(
                "0_0",
                "core_data.jsonl:1",
                {
                    "instruction": "Count the words of the sentence.",
                    "input": "Snow fell all night.",
                    "constraints": "The output should be a number.",
                    "output": "4",
                },
            ),
            Conversation(
                "unnatural_instructions",
                "unnatural_instructions_0_0",
                (
                    Message(
                        "user",
                        "Count the words of the sentence.\nThe output should be a number.\n\nSnow fell all night.\n\n",
                    ),
                    Message("assistant", "4"),
                ),
            ),
        ),
        Example(
            RawRow(
                "1_0",
                "core_data.jsonl:2",
                {
                    "instruction": "Turn the statement into a question.",
                    "input": "The shop is open.",
                    "constraints": "None.",
                    "output": "Is the shop open?",
                },
            ),
            Conversation(
                "unnatural_instructions",
                "unnatural_instructions_1_0",
                (
                    Message("user", "Turn the statement into a question.\nThe shop is open.\n"),
                    Message("assistant", "Is the shop open?"),
                ),
            ),
        ),
    ),
)
