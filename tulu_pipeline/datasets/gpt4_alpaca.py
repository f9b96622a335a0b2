"""GPT4-Alpaca: Alpaca's 52,002 instructions, answered anew by GPT-4.

License: CC-BY-NC-4.0 (the repository's DATA_LICENSE).
Citation: Peng et al., "Instruction Tuning with GPT-4", arXiv:2304.03277.
Source: github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM, `data/alpaca_gpt4_data.json` at commit 80cda62.
Size: 52,002 rows; Table 1 has 52,002 with 1.0 rounds, 28.0 tokens per prompt and 161.8 per completion.
Format: Alpaca's.
Variants: `sample`, 9,954 rows collected from three published subsets and put in Alpaca's order. It is skewed: most of
its rows come from a subset that a selection method had rated low, so its outputs are short. It has no address of its
own and comes from a mirror, by its hash.

Deviations from the paper: templates are drawn per row.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.instructions import alpaca_conversation
from tulu_pipeline.raw.readers import read_json_arrays
from tulu_pipeline.specs.dataset import Dataset, Example, PaperCounts, RawRow


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    return alpaca_conversation("gpt4_alpaca", row, rng)


_FULL = Dataset(
    name="gpt4_alpaca",
    module=__name__,
    title="GPT4-Alpaca",
    citation='Peng et al., "Instruction Tuning with GPT-4", arXiv:2304.03277, 2023',
    license="CC-BY-NC-4.0",
    url="https://github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM",
    sources={
        "alpaca_gpt4_data.json": PinnedFile(
            url="https://raw.githubusercontent.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM/80cda626ea305004be42426671c66efebbf22144/data/alpaca_gpt4_data.json"
        )
    },
    read=read_json_arrays,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=52_002, mean_rounds=1.0, mean_prompt_tokens=28.0, mean_completion_tokens=161.8),
    examples=(
        Example(
            RawRow(
                "0",
                "alpaca_gpt4_data.json:2",
                {
                    "instruction": "Which of these is a metal?",
                    "input": "oxygen, iron, helium",
                    "output": "Iron is a metal.",
                },
            ),
            Conversation(
                "gpt4_alpaca",
                "gpt4_alpaca_0",
                (
                    Message("user", "Task: Which of these is a metal?\n\noxygen, iron, helium\n\nAnswer:"),
                    Message("assistant", "Iron is a metal."),
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
                "alpaca_gpt4_data.json": PinnedFile(
                    url=None, sha256="6494908d81cf98be408bf8bc366cdfd2d23837f5d1830be1bd9551b4ccd6bd84"
                )
            },
            sample="9,954 of 52,002",
            examples=(),  # the templates drawn follow from the name
        )
    },
)
