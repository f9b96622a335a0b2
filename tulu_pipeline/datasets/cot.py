r"""CoT: questions answered with the reasoning that leads to the answer, from nine sets gathered by the FLAN collection.

License: Apache-2.0 (google-research/FLAN); the nine sets have their own.
Citation: Longpre et al., "The Flan Collection", arXiv:2301.13688; Wei et al., arXiv:2201.11903.
Source: the hub's hamishivi/tulu_mix_store at revision 7508c5e, `cot_zsopt.jsonl` (83 MB) and `cot_fsopt.jsonl`
    (590 MB): the two CoT submixes as AI2 dumped them, zero-shot and few-shot, with answer options. The variants of raw
    questions: github.com/google-research/FLAN, `flan/v2/cot_data/*_train.tsv` at commit e9e4ec6.
Size: 50,000 rows drawn of each submix; Table 1 has 100,000 with 1.0 rounds, 266.0 tokens per prompt and 53.2 per
    completion. Raw questions: 74,771 in nine files.
Format: JSON lines with `inputs` (the whole prompt) and `targets`. Raw questions: three fields between tabs: question,
    answer, rationale; newlines are written `\n`.
Variants: `paper2023` replays Python's generator at seed 42, as `reformat_datasets.py --dataset tulu_v1`
    of open-instruct (October 2023) does, where CoT is the first to draw. `tsv`, each raw question of the nine files
    once, in one template of ours: the question, a line that asks for the reasoning, and as the completion the
    rationale with the answer on a line of its own. `sample`, the same of seven of the nine files, each whole (without
    esnli and qed): 33,443 rows.

Deviations from the paper: the default draws by hash, so these are other rows of the same two files. Of `paper2023` the
rows are the script's, in file order instead of the order of the picks; which rows the paper's first models saw hung on
what else its process had converted before. Ids name the submix and a hash of prompt and answer, so that no pick hangs
on where a row stands; the original numbered its picks.
"""

from __future__ import annotations

import random
from dataclasses import replace

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.flan import draw_of_submixes, flan_conversation, published, read_submixes
from tulu_pipeline.raw.readers import read_tab_separated
from tulu_pipeline.specs.dataset import Dataset, Example, PaperCounts, RawRow, RowDropped

_TSV_FOLDER = (
    "https://raw.githubusercontent.com/google-research/FLAN/e9e4ec6e2701182c7a91af176f705310da541277/flan/v2/cot_data"
)
_TSV_SHA256 = {
    "aqua_train.tsv": "2e43bd7900e739a78d7b7b7444e19bae4259399327eb76b78a30f4e4fb7dfdda",
    "creak_train.tsv": "ee6b9a3d88fbc1bdf7cd751c7f266edfc4c15e475560408ffb79490b2fe7bdea",
    "ecqa_train.tsv": "cf6967d587851f25a834cdd16c73f17a4da08bae5b8821922a64b3107160e01c",
    "esnli_train.tsv": None,
    "gsm8k_train.tsv": "acecbb7438cccae1b2eaa212a291c127ece02670d8bb39600164ab20f1d759a7",
    "qasc_train.tsv": "566ba8c3945b5fe8e3125ca4919c15f36e1067b881c251e75d071ad38c861b9a",
    "qed_train.tsv": None,
    "sensemaking_train.tsv": "c978b40455ed62b1755956f25327c7cec6f9d4954f7185e6fb14b03db74c65af",
    "strategyqa_train.tsv": "0e56b9f46b4d1569e45bf4c7f10d7854be81ae62303098fbd03d3e0bf912201f",
}
_TSV_SOURCES = {name: PinnedFile(url=f"{_TSV_FOLDER}/{name}", sha256=sha256) for name, sha256 in _TSV_SHA256.items()}


def _convert_question(row: RawRow, rng: random.Random) -> Conversation:
    fields = row.value
    if not (isinstance(fields, list) and len(fields) == 3 and all(isinstance(field, str) for field in fields)):
        found = f"{len(fields)} fields" if isinstance(fields, list) else type(fields).__name__
        raise RowDropped(f"{found} instead of question, answer and rationale")
    question, answer, rationale = (field.replace("\\n", "\n").strip() for field in fields)
    for name, field in (("question", question), ("answer", answer), ("rationale", rationale)):
        if not field:
            raise RowDropped(f"empty {name}")
    prompt = f"{question}\n\nThink it through before you answer."
    return Conversation(
        "cot",
        f"cot_{row.row_id}",
        (Message("user", prompt), Message("assistant", f"{rationale}\nThe answer is {answer}.")),
    )


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    return flan_conversation("cot", row)


_SUBMIXES = Dataset(
    name="cot",
    module=__name__,
    title="CoT",
    citation='Longpre et al., "The Flan Collection: Designing Data and Methods for Effective Instruction Tuning", 2023',
    license="Apache-2.0",
    url="https://github.com/google-research/FLAN",
    sources={"zsopt.jsonl": published("cot_zsopt.jsonl"), "fsopt.jsonl": published("cot_fsopt.jsonl")},
    read=read_submixes,
    draw=draw_of_submixes(lambda submix: 50_000),
    convert=_convert,
    converter_version=3,
    paper=PaperCounts(instances=100_000, mean_rounds=1.0, mean_prompt_tokens=266.0, mean_completion_tokens=53.2),
    examples=(
        Example(
            RawRow(
                "zsopt_4fd038218673c86f",
                "zsopt.jsonl:1",
                {
                    "inputs": "Can a candle burn under water? Reason first.\nOptions:\n- yes\n- no",
                    "targets": "A flame needs air, and under water it gets none. So the answer is no.",
                },
            ),
            Conversation(
                "cot",
                "cot_zsopt_4fd038218673c86f",
                (
                    Message("user", "Can a candle burn under water? Reason first.\nOptions:\n- yes\n- no\n"),
                    Message("assistant", "A flame needs air, and under water it gets none. So the answer is no."),
                ),
            ),
        ),
    ),
)

_TSV = replace(
    _SUBMIXES,
    sources=_TSV_SOURCES,
    read=read_tab_separated,
    draw=None,
    convert=_convert_question,
    converter_version=1,
    paper=None,  # which counts the submixes
    examples=(
        Example(
            RawRow(
                "gsm8k_train_0",
                "gsm8k_train.tsv:1",
                [
                    "Ida has 3 bags of 4 nuts.\\nHow many nuts has she?",
                    "12",
                    "Each bag holds 4 nuts, so 3 bags hold 3 * 4 = 12.",
                ],
            ),
            Conversation(
                "cot",
                "cot_gsm8k_train_0",
                (
                    Message(
                        "user",
                        "Ida has 3 bags of 4 nuts.\nHow many nuts has she?\n\nThink it through before you answer.",
                    ),
                    Message("assistant", "Each bag holds 4 nuts, so 3 bags hold 3 * 4 = 12.\nThe answer is 12."),
                ),
            ),
        ),
    ),
)

DATASET = replace(
    _SUBMIXES,
    variants={
        "paper2023": replace(
            _SUBMIXES,
            draw=draw_of_submixes(lambda submix: 50_000, sampling="paper2023"),
        ),
        "tsv": _TSV,
        "sample": replace(
            _TSV,
            sources={name: source for name, source in _TSV_SOURCES.items() if source.sha256},
            sample="33,443 of 74,771",
        ),
    },
)
