"""Code Alpaca: 20,022 programming instructions with answers written by text-davinci-003, by Alpaca's method.

License: CC-BY-NC-4.0 (the repository's DATA_LICENSE).
Citation: Chaudhary, "Code Alpaca: An Instruction-following LLaMA model for code generation", 2023.
Source: github.com/sahil280114/codealpaca, `data/code_alpaca_20k.json` at commit 2f78ddc.
Size: 20,022 rows; Table 1 has 20,022 with 1.0 rounds, 35.6 tokens per prompt and 67.8 per completion.
Format: Alpaca's.
Variants: `sample`, the authors' own file of 2,017 rows (`data/code_alpaca_2k.json` of the same commit).

Deviations from the paper: templates are drawn per row. Rows with an empty output stay (2 of the sample's).
"""

from __future__ import annotations

import random
from dataclasses import replace

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.instructions import alpaca_conversation
from tulu_pipeline.raw.readers import read_json_arrays
from tulu_pipeline.specs.dataset import Dataset, Example, PaperCounts, RawRow

_FOLDER = "https://raw.githubusercontent.com/sahil280114/codealpaca/2f78ddc5c682ed6738ad092bbbfa59ba915afcb0/data"


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    return alpaca_conversation("code_alpaca", row, rng)


_FULL = Dataset(
    name="code_alpaca",
    module=__name__,
    title="Code Alpaca",
    citation='Chaudhary, "Code Alpaca: An Instruction-following LLaMA model for code generation", 2023',
    license="CC-BY-NC-4.0",
    url="https://github.com/sahil280114/codealpaca",
    sources={"code_alpaca_20k.json": PinnedFile(url=f"{_FOLDER}/code_alpaca_20k.json")},
    read=read_json_arrays,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=20_022, mean_rounds=1.0, mean_prompt_tokens=35.6, mean_completion_tokens=67.8),
    examples=(
        Example(
            RawRow(
                "0",
                "code_alpaca_20k.json:2",
                {
                    "instruction": "Write a Python expression for the sum of the list xs.",
                    "input": "",
                    "output": "sum(xs)",
                },
            ),
            Conversation(
                "code_alpaca",
                "code_alpaca_0",
                (
                    Message("user", "Write a Python expression for the sum of the list xs."),
                    Message("assistant", "\nsum(xs)"),
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
                "code_alpaca_2k.json": PinnedFile(
                    url=f"{_FOLDER}/code_alpaca_2k.json",
                    sha256="9cb7352683bd2f530ce81eff7f8d58ccbe1a4bdf28afebbe9f80ec687256066d",
                )
            },
            sample="2,017 of 20,022",
            examples=(),  # the templates drawn follow from the name
        )
    },
)
