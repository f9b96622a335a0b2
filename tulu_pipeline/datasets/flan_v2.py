"""FLAN V2: prompts and answers of the FLAN collection, which phrases some 1,800 NLP tasks by many templates.

License: Apache-2.0 (google-research/FLAN); the tasks' own data sets have their own.
Citation: Longpre et al., "The Flan Collection", arXiv:2301.13688.
Source: the hub's hamishivi/tulu_mix_store, `flan_v2_resampled_100k.jsonl` at revision 7508c5e: the very rows of the
    paper, drawn by AI2 from its dump of the collection.
Size: 100,000 rows; Table 1 has 100,000 with 1.0 rounds, 355.7 tokens per prompt and 31.2 per completion.
Format: JSON lines with `inputs` (the whole prompt) and `targets`.
Variants: draw anew from fourteen submixes, by the paper's proportions (those of the collection's `run_example.py`):
    `submix` by hash, `submix_paper2023` with Python's generator at seed 42, as `scripts/resample_flan_v2.py` of
    open-instruct did, in its order of submixes and of lines. Their ids are hashes of prompt and answer.
    The CoT submixes of AI2's dump are published; the twelve others are expected in `raw/flan_v2/<submix>.jsonl`.
    The hub's Open-Orca/FLAN has all of them as Parquet (296 GB); SirNeural/flan_v2 has no t0_fsopt.

Deviations from the paper: none in the default. Rows without a target are dropped; rows whose prompt or target is an
empty text stay, as in the original. Where a submix has fewer rows than its share, all are taken; the original stopped.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tulu_pipeline.artifacts.source import LocalFile, Source
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.flan import draw_of_submixes, flan_conversation, published, read_submixes
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import Dataset, Example, PaperCounts, RawRow

_ROWS = {
    "flan_zsopt": 10_000,
    "flan_fsopt": 10_000,
    "flan_zsnoopt": 10_000,
    "flan_fsnoopt": 10_000,
    "t0_zsopt": 8_000,
    "t0_fsopt": 8_000,
    "t0_zsnoopt": 8_000,
    "t0_fsnoopt": 8_000,
    "niv2_zsopt": 10_000,
    "niv2_fsopt": 10_000,
    "cot_zsopt": 2_500,
    "cot_fsopt": 2_500,
    "dialog_zsopt": 1_500,
    "dialog_fsopt": 1_500,
}


def _source(submix: str) -> Source:
    if submix.startswith("cot_"):
        return published(f"{submix}.jsonl")
    return LocalFile(path=f"raw/flan_v2/{submix}.jsonl")


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    return flan_conversation("flan_v2", row)


_RESAMPLED = Dataset(
    name="flan_v2",
    module=__name__,
    title="FLAN V2",
    citation='Longpre et al., "The Flan Collection: Designing Data and Methods for Effective Instruction Tuning", 2023',
    license="Apache-2.0",
    url="https://github.com/google-research/FLAN",
    sources={"flan_v2_resampled_100k.jsonl": published("flan_v2_resampled_100k.jsonl")},
    read=read_json_lines,
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=100_000, mean_rounds=1.0, mean_prompt_tokens=355.7, mean_completion_tokens=31.2),
    examples=(
        Example(
            RawRow(
                "0",
                "flan_v2_resampled_100k.jsonl:1",
                {"inputs": "Is this a question?\n\nThe kettle is on.", "targets": "no"},
            ),
            Conversation(
                "flan_v2",
                "flan_v2_0",
                (
                    Message("user", "Is this a question?\n\nThe kettle is on.\n"),
                    Message("assistant", "no"),
                ),
            ),
        ),
        Example(
            RawRow(
                "1",
                "flan_v2_resampled_100k.jsonl:2",
                {"inputs": "Say it in one word.\nvery cold\nAnswer: ", "targets": "freezing"},
            ),
            Conversation(
                "flan_v2",
                "flan_v2_1",
                (
                    Message("user", "Say it in one word.\nvery cold\nAnswer: "),
                    Message("assistant", "freezing"),
                ),
            ),
        ),
    ),
)

_SUBMIX = replace(
    _RESAMPLED,
    sources={f"{submix}.jsonl": _source(submix) for submix in _ROWS},
    read=read_submixes,
    draw=draw_of_submixes(_ROWS.__getitem__),
    converter_version=2,
    examples=(),
)

DATASET = replace(
    _RESAMPLED,
    variants={
        "submix": _SUBMIX,
        "submix_paper2023": replace(
            _SUBMIX,
            draw=draw_of_submixes(_ROWS.__getitem__, sampling="paper2023"),
        ),
    },
)
