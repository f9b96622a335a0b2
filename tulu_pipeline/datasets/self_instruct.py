"""Self-Instruct: 82,439 instances of 52,445 instructions, all written by GPT-3 (davinci) from 175 seed tasks.

License: Apache-2.0 (the repository's LICENSE).
Citation: Wang et al., "Self-Instruct: Aligning Language Models with Self-Generated Instructions", arXiv:2212.10560.
Source: github.com/yizhongw/self-instruct, `data/gpt3_generations/batch_221203/all_instances_82K.jsonl` at commit
    0b26cca.
Size: 82,439 rows; Table 1 has 82,439 with 1.0 rounds, 41.5 tokens per prompt and 29.3 per completion.
Format: JSON lines with `instruction`, `input` (may be empty) and `output`.
Variants: `seed_tasks`, the 175 tasks that people wrote to start from (`data/seed_tasks.jsonl` of the same commit):
    JSON lines with `instruction` and `instances`, each an `input` and an `output`. Not a part of the 82,439, and of
    another hand; for trying things out.

Deviations from the paper: templates are drawn per row, not from one stream for the whole process.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.instances import split_instances
from tulu_pipeline.raw.instructions import alpaca_conversation
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import Dataset, Example, PaperCounts, RawRow

_FOLDER = "https://raw.githubusercontent.com/yizhongw/self-instruct/0b26ccaa415992100fa32df62d41b994cf928e23/data"


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    return alpaca_conversation("self_instruct", row, rng)


_GENERATED = Dataset(
    name="self_instruct",
    module=__name__,
    title="Self-Instruct",
    citation='Wang et al., "Self-Instruct: Aligning Language Models with Self-Generated Instructions", 2022',
    license="Apache-2.0",
    url="https://github.com/yizhongw/self-instruct",
    sources={
        "all_instances_82K.jsonl": PinnedFile(url=f"{_FOLDER}/gpt3_generations/batch_221203/all_instances_82K.jsonl")
    },
    read=read_json_lines,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=82_439, mean_rounds=1.0, mean_prompt_tokens=41.5, mean_completion_tokens=29.3),
    examples=(
        Example(
            RawRow(
                "0",
                "all_instances_82K.jsonl:1",
                {"instruction": "Name a fruit of this color.", "input": "yellow", "output": "Lemon"},
            ),
            Conversation(
                "self_instruct",
                "self_instruct_0",
                (Message("user", "Name a fruit of this color.\n\nyellow\n\n"), Message("assistant", "Lemon")),
            ),
        ),
    ),
)

DATASET = replace(
    _GENERATED,
    variants={
        "seed_tasks": replace(
            _GENERATED,
            title="Self-Instruct, seed tasks",
            sources={
                "seed_tasks.jsonl": PinnedFile(
                    url=f"{_FOLDER}/seed_tasks.jsonl",
                    sha256="7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",
                )
            },
            split=split_instances,
            paper=None,
            sample="175 of 82,439",
            examples=(),  # the templates drawn follow from the name
        )
    },
)
