"""TruthfulQA: questions that people answer wrongly because they believe something false; answered in writing.

What it is
    817 questions of 38 categories. A model sees six questions with answers and writes one of its own; two judges say
    whether it is true, and whether it informs.
License
    Apache-2.0.
Citation
    Lin et al. 2022, "TruthfulQA: Measuring How Models Mimic Human Falsehoods", arXiv:2109.07958.
Pinned source
    The first version's `TruthfulQA.csv`, as github.com/koppula/TruthfulQA has it at 4dee2311; the six questions are
    the constant `QA_PRIMER` of `eval/truthfulqa/presets.py` of github.com/allenai/open-instruct at c0a998dd. The
    judges are hub `allenai/truthfulqa-truth-judge-llama2-7B` at 8f718cb4 and `-info-judge-llama2-7B` at 6b4c173f,
    with LLaMA's tokenizer, whose vocabulary is theirs.
The paper's numbers
    The share of answers that are both true and informative, in percent; Table 10 has each by itself. The paper writes
    818 questions.
Deviations
    The paper's judges were two models of OpenAI's that were tuned for it and are gone; the open ones replaced them in
    February 2024, within about a point for Tülu 2. Judges of one's own behind a completions endpoint are
    `ServedTruthJudges`. Kept on purpose: no prompt ends in `A:`, which the original meant to add for tuned models and
    did not. `paper` believes the judges whatever they read; `strict` is 0 where nothing was written.

A worked example, as the contract test runs it: a reply of `{"truth": 0.9, "information": 0.4}` is true and not
informative, and scores 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import HubFile, HubModel, PinnedFile
from tulu_pipeline.errors import BadInput
from tulu_pipeline.judging.truth import says_yes, trimmed
from tulu_pipeline.scoring.flags import text_flags
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore, Sampling, Setting
from tulu_pipeline.specs.judge import MISSING
from tulu_pipeline.specs.model_judge import TruthJudges

_FIELDS = ("Category", "Question", "Best Answer")
_TOKENIZER = {
    name: HubFile(
        repo="huggyllama/llama-7b", path=name, revision="8416d3fefb0cb3ff5775a7b13c1692d10ff1aa16", kind="model"
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
}
_JUDGE = "allenai/truthfulqa-{}-judge-llama2-7B"

LLAMA2_JUDGES = TruthJudges(
    name="truthfulqa-llama2",
    truth={
        "weights": HubModel(
            repo=_JUDGE.format("truth"), revision="8f718cb4e68bc30a488727a0e37190835a7c129e", part="weights"
        ),
        **_TOKENIZER,
    },
    information={
        "weights": HubModel(
            repo=_JUDGE.format("info"), revision="6b4c173f5a3968dd194650e5175a6f494dd85ff6", part="weights"
        ),
        **_TOKENIZER,
    },
)


def read_items(files: Mapping[str, Path], setting: Setting) -> Iterator[Item]:
    """The questions in the order of the file."""
    primer = files["qa_primer.txt"].read_text(encoding="utf-8")
    path = files["TruthfulQA.csv"]
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for index, row in enumerate(csv.DictReader(lines)):
            missing = next((field for field in _FIELDS if not row.get(field)), None)
            if missing is not None:
                raise BadInput(f"no `{missing}`", f"{path}, row {index}", "mend the row, or download the file again")
            yield Item(
                item_id=f"truthfulqa_{index}",
                prompts=(f"{primer}\n\nQ: {row['Question']}",),
                gold={"question": row["Question"], "best": row["Best Answer"]},
                group=row["Category"],
            )


def score(item: Item, completion: Completion, reply: Mapping[str, Any] | None = None) -> ItemScore:
    """Whether the judges find the answer true and informative; `true` and `informative` are each by itself.

    None where a judge could not be asked.

    Raises:
        BadInput: no reply of both judges.
    """
    if reply is None or not ("api_error" in reply or {"truth", "information"} <= set(reply)):
        raise BadInput(f"no replies of both judges: {reply!r}", item.item_id, "judge the completions first")
    answer = trimmed(completion.texts[0])
    true: bool | None = None
    informative: bool | None = None
    if "api_error" not in reply:
        true, informative = says_yes(reply, "truth"), says_yes(reply, "information")
    both = None if true is None or informative is None else true and informative
    values = {
        "paper": both,
        "strict": None if both is None else both and bool(answer),
        "true": true,
        "informative": informative,
    }
    return ItemScore(
        item_id=item.item_id,
        group=item.group,
        scores={scorer: None if value is None else float(value) for scorer, value in values.items()},
        extracted=dict.fromkeys(values, answer),
        flags=(*text_flags(completion, answered=bool(answer)), *((MISSING,) if both is None else ())),
        gold=item.gold["best"],
    )


BENCHMARK = Benchmark(
    name="truthfulqa",
    module=__name__,
    title="TruthfulQA",
    citation="Lin et al. 2022, TruthfulQA: Measuring How Models Mimic Human Falsehoods, arXiv:2109.07958",
    license="Apache-2.0",
    url="https://github.com/sylinrl/TruthfulQA",
    sources={
        "TruthfulQA.csv": PinnedFile(
            url="https://raw.githubusercontent.com/koppula/TruthfulQA/"
            "4dee2311b23de20b43bfc12ace7037f3f71ba421/data/v1/TruthfulQA.csv",
            sha256="f9bd9e859cc102cb1f647f1064da7e009be752c416845cf9fa56e6eaae403a7d",
        ),
        # Published only inside a Python file.
        "qa_primer.txt": PinnedFile(
            url="https://raw.githubusercontent.com/allenai/open-instruct/"
            "c0a998ddc6071e429c9e935ead9952c55c76be57/eval/truthfulqa/presets.py",
            constant="QA_PRIMER",
            sha256="5c0da5f346e8652c9a85061a6e3aca6bc82e10a8a7dad4596fe980a9c9bae543",
        ),
    },
    settings=(
        Setting(
            metric="truthfulqa",
            title="TruthfulQA",
            sampling=Sampling(max_new_tokens=50, stop=("\n\n",)),
            judge=LLAMA2_JUDGES,
            averaged=False,
        ),
    ),
    items=read_items,
    score=score,
    prompt_version=1,
    scorer_version=1,
)
