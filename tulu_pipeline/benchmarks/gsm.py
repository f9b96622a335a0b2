"""GSM: grade-school mathematics in words, 8 shots, answered directly or with a chain of thought.

What it is
    1,319 test questions of GSM8K; the answer is a number, after `####` in the file. The paper asks 200 of them, drawn
    by `random.sample` with seed 42, and shows the 8 exemplars of Wei et al. (2022, Table 20) as its script had them.
    The settings with `_full` ask all.
License
    MIT (questions); Apache-2.0 (the file of exemplars).
Citation
    Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems", arXiv:2110.14168.
Pinned source
    github.com/openai/grade-school-math at 3101c7d5; the exemplars are the constant `EXAMPLARS` of
    `eval/gsm/examplars.py` of github.com/allenai/open-instruct at c0a998dd, one JSON object a line.
The paper's numbers
    200 questions, so a standard error of 3.5 points at 50 %.
Deviations
    None in prompts, sampling and the `paper` scorer. Kept on purpose: the exemplars without a chain of thought start
    with the misspelled `Quesion:`; the `paper` scorer loses the sign of an integer and strips the point of a decimal,
    so that 18.00 is wrong for 18. `strict` compares numbers. `ext:lm_eval` is `flexible-extract` of the tasks `gsm8k`
    and `gsm8k_cot` of lm-evaluation-harness: the last run of digits and marks, as text without dollars, commas and the
    point at its end. Their other filter, `strict-match`, looks for words that these exemplars do not show (`The answer
    is`, `####`). Their prompts differ.

A worked example, as the contract test runs it: the completion `It is 1,000 - 7. So the answer is $993.` to an item
whose gold answer is 993 is extracted as `993` by `paper` and `strict`, as `$993.` by `ext:lm_eval`, and is right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.exact_match import exact_match
from tulu_pipeline.scoring.flags import text_flags
from tulu_pipeline.scoring.numbers import (
    last_number,
    last_number_of_lm_eval,
    last_number_of_paper,
    same_number_of_lm_eval,
    without_digit_commas,
)
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore, Sampling, Setting

_SAMPLING = Sampling(max_new_tokens=512, stop=("\n",))
_PAPER_SUBSET = 200
_SUBSET_SEED = 42


def read_items(files: Mapping[str, Path], setting: Setting) -> Iterator[Item]:
    """The questions in the order they are asked.

    Options of the setting: `cot` (exemplars with a chain of thought), `subset` (number of questions drawn; 0, or a
    number not below the file's, asks all in the file's order).
    """
    cot = bool(setting.options["cot"])
    shots = "\n\n".join(_exemplar(row, cot, where) for where, row in _json_lines(files["exemplars.jsonl"]))
    head = f"Answer the following questions.\n\n{shots}\n\n"
    questions = list(_json_lines(files["test.jsonl"]))
    for index in asked(len(questions), int(setting.options["subset"])):
        where, row = questions[index]
        yield Item(
            item_id=f"gsm_{index}",
            prompts=(f"{head}Question: {_text(row, 'question', where).strip()}",),
            cue="Answer:",
            gold=_gold(_text(row, "answer", where), where),
        )


def asked(questions: int, subset: int) -> list[int]:
    """Which questions are asked, by their index in the file: the paper's draw, or all of them."""
    if subset == 0 or questions <= subset:
        return list(range(questions))
    # The original seeds the global generator and samples the rows; indices fall as the rows do.
    return random.Random(_SUBSET_SEED).sample(range(questions), subset)


def score(item: Item, completion: Completion, reply: Mapping[str, Any] | None = None) -> ItemScore:
    """`paper`: last number, or the raw output, as text without case and punctuation. `strict`: last number by value.

    `ext:lm_eval`: what `flexible-extract` of lm-evaluation-harness takes, as text.
    """
    text, gold = completion.texts[0], str(item.gold)
    paper = last_number_of_paper(text)
    value = last_number(text)
    answer = paper if paper is not None else text
    harness = last_number_of_lm_eval(text)
    return ItemScore(
        item_id=item.item_id,
        group=item.group,
        scores={
            "paper": float(exact_match(answer, gold, ignore_case=True, ignore_punctuation=True)),
            "strict": float(value is not None and value == Decimal(gold)),
            "ext:lm_eval": float(same_number_of_lm_eval(harness, gold)),
        },
        extracted={"paper": answer, "strict": "" if value is None else str(value), "ext:lm_eval": harness},
        flags=text_flags(completion, answered=value is not None),
        gold=gold,
    )


def _exemplar(row: dict[str, Any], cot: bool, where: str) -> str:
    label, answer = ("Question", "cot_answer") if cot else ("Quesion", "short_answer")
    return f"{label}: {_text(row, 'question', where)}\nAnswer: {_text(row, answer, where)}"


def _gold(answer: str, where: str) -> str:
    _, mark, after = answer.partition("####")
    gold = without_digit_commas(after.strip())
    try:
        Decimal(gold)
    except InvalidOperation as error:
        what = f"the answer `{gold}` is no number" if mark else "no `####` before the answer"
        raise BadInput(what, where, "write the answer as `… #### 18`") from error
    return gold


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadInput(
                    f"broken JSON: {error.msg}", where, "mend the line, or download the file again"
                ) from error
            if not isinstance(row, dict):
                raise BadInput(f"a {type(row).__name__}, not an object", where, "write one JSON object a line")
            yield where, row


def _text(row: dict[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        raise BadInput(f"`{field}` is {value!r}, not a text", where, f"give the row a `{field}`")
    return value


BENCHMARK = Benchmark(
    name="gsm",
    module=__name__,
    title="GSM8K",
    citation="Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems, arXiv:2110.14168",
    license="MIT",
    url="https://github.com/openai/grade-school-math",
    sources={
        "test.jsonl": PinnedFile(
            url="https://raw.githubusercontent.com/openai/grade-school-math/"
            "3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/test.jsonl",
            sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        ),
        # Published only as a Python file.
        "exemplars.jsonl": PinnedFile(
            url="https://raw.githubusercontent.com/allenai/open-instruct/"
            "c0a998ddc6071e429c9e935ead9952c55c76be57/eval/gsm/examplars.py",
            constant="EXAMPLARS",
            sha256="1a9738b43bfb404e877769e03a1b486471b671844cb13e259cae7f200137b693",
        ),
    },
    settings=(
        Setting(
            metric="gsm_direct",
            title="GSM direct (8-shot)",
            sampling=_SAMPLING,
            options={"cot": False, "subset": _PAPER_SUBSET},
        ),
        Setting(
            metric="gsm_cot",
            title="GSM CoT (8-shot)",
            sampling=_SAMPLING,
            options={"cot": True, "subset": _PAPER_SUBSET},
        ),
        Setting(
            metric="gsm_direct_full",
            title="GSM direct, all items",
            sampling=_SAMPLING,
            options={"cot": False, "subset": 0},
            averaged=False,
        ),
        Setting(
            metric="gsm_cot_full",
            title="GSM CoT, all items",
            sampling=_SAMPLING,
            options={"cot": True, "subset": 0},
            averaged=False,
        ),
    ),
    items=read_items,
    score=score,
    prompt_version=1,
    scorer_version=2,
)
