"""Stanford Alpaca: 52,002 instructions with answers written by text-davinci-003 from 175 seed tasks.

License: CC-BY-NC-4.0 (the repository's DATA_LICENSE).
Citation: Taori et al., "Stanford Alpaca: An Instruction-following LLaMA model", 2023.
Source: github.com/tatsu-lab/stanford_alpaca, `alpaca_data.json` at commit 761dc5b.
Size: 52,002 rows; Table 1 has 52,002 with 1.0 rounds, 27.8 tokens per prompt and 64.6 per completion.
Format: one JSON array of objects with `instruction`, `input` (often empty) and `output`.

Deviations from the paper: templates are drawn per row, not from one stream for the whole process. The 28 rows with an
empty output stay, as in the original: they teach the end mark alone.
"""

from __future__ import annotations

import random

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.instructions import alpaca_conversation
from tulu_pipeline.raw.readers import read_json_arrays
from tulu_pipeline.specs.dataset import Dataset, Example, PaperCounts, RawRow


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    return alpaca_conversation("alpaca", row, rng)


DATASET = Dataset(
    name="alpaca",
    module=__name__,
    title="Stanford Alpaca",
    citation='Taori et al., "Stanford Alpaca: An Instruction-following LLaMA model", 2023',
    license="CC-BY-NC-4.0",
    url="https://github.com/tatsu-lab/stanford_alpaca",
    sources={
        "alpaca_data.json": PinnedFile(
            url="https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/761dc5bfbdeeffa89b8bff5d038781a4055f796a/alpaca_data.json",
            sha256="2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419",
        )
    },
    read=read_json_arrays,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=52_002, mean_rounds=1.0, mean_prompt_tokens=27.8, mean_completion_tokens=64.6),
    examples=(
        Example(
            RawRow(
                "0",
                "alpaca_data.json:2",
                {"instruction": "Name the planet closest to the sun.", "input": "", "output": "Mercury."},
            ),
            Conversation(
                "alpaca",
                "alpaca_0",
                (
                    Message("user", "Can you help with this?\n\nName the planet closest to the sun.\n"),
                    Message("assistant", "Mercury."),
                ),
            ),
        ),
        Example(
            RawRow(
                "1",
                "alpaca_data.json:7",
                {
                    "instruction": "Sort these words by length.",
                    "input": "pear, fig, banana",
                    "output": "fig, pear, banana",
                },
            ),
            Conversation(
                "alpaca",
                "alpaca_1",
                (
                    Message("user", "Task: Sort these words by length.\n\npear, fig, banana\n\nAnswer:"),
                    Message("assistant", "fig, pear, banana"),
                ),
            ),
        ),
    ),
)
