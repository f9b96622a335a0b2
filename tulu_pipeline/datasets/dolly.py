"""Dolly: 15,011 instructions written and answered by employees of Databricks, some about a given passage.

License: CC-BY-SA-3.0.
Citation: Conover et al., "Free Dolly: Introducing the World's First Truly Open Instruction-Tuned LLM", 2023.
Source: the hub's databricks/databricks-dolly-15k, `databricks-dolly-15k.jsonl` at revision bdd27f4.
Size: 15,011 rows; Table 1 has 15,011 with 1.0 rounds, 118.1 tokens per prompt and 91.3 per completion.
Format: JSON lines with `instruction`, `context` (often empty), `response` and `category`.
Variants: `sample`, 2,996 rows that another project had rated best; it has no address of its own and comes from a
mirror, by its hash.

Deviations from the paper: templates are drawn per row, not from one stream for the whole process. As in the original
the category is left out and the passage goes where Alpaca's input goes.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tulu_pipeline.artifacts.source import HubFile, PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.instructions import alpaca_conversation
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import Dataset, Example, PaperCounts, RawRow


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    return alpaca_conversation("dolly", row, rng, input_key="context", output_key="response")


_FULL = Dataset(
    name="dolly",
    module=__name__,
    title="Dolly",
    citation='Conover et al., "Free Dolly: Introducing the World\'s First Truly Open Instruction-Tuned LLM", 2023',
    license="CC-BY-SA-3.0",
    url="https://huggingface.co/datasets/databricks/databricks-dolly-15k",
    sources={
        "databricks-dolly-15k.jsonl": HubFile(
            repo="databricks/databricks-dolly-15k",
            path="databricks-dolly-15k.jsonl",
            revision="bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a",
            sha256="2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec",
        )
    },
    read=read_json_lines,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=15_011, mean_rounds=1.0, mean_prompt_tokens=118.1, mean_completion_tokens=91.3),
    examples=(
        Example(
            RawRow(
                "0",
                "databricks-dolly-15k.jsonl:1",
                {
                    "instruction": "How long is the Ilse bridge?",
                    "context": "The Ilse bridge, opened in 1931, spans 84 meters.",
                    "response": "The Ilse bridge is 84 meters long.",
                    "category": "closed_qa",
                },
            ),
            Conversation(
                "dolly",
                "dolly_0",
                (
                    Message(
                        "user",
                        "How long is the Ilse bridge?\n\n"
                        "Input: The Ilse bridge, opened in 1931, spans 84 meters.\n\nOutput:",
                    ),
                    Message("assistant", "The Ilse bridge is 84 meters long."),
                ),
            ),
        ),
        Example(
            RawRow(
                "1",
                "databricks-dolly-15k.jsonl:2",
                {
                    "instruction": "Name two uses of cork.",
                    "context": "",
                    "response": "Stoppers and floor tiles.",
                    "category": "brainstorming",
                },
            ),
            Conversation(
                "dolly",
                "dolly_1",
                (
                    Message("user", "You need to complete the following task:\n\nName two uses of cork.\n\n"),
                    Message("assistant", "Stoppers and floor tiles."),
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
            sources={
                "databricks-dolly-15k.jsonl": PinnedFile(
                    url=None, sha256="8b0488b46ca60e4f10132f3c0b4de36dd9e20fba422ce5e1a08af733690b7f49"
                )
            },
            sample="2,996 of 15,011",
            examples=(),  # the templates drawn follow from the name
        )
    },
)
