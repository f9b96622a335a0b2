"""BIG-Bench Hard: 23 tasks that language models did worse in than people, 3 shots, directly or with a chain of thought.

What it is
    27 files of 146 to 250 questions, 6,511 in all; three exemplars with a chain of thought for each file. Answers are
    options, words, numbers or brackets. The paper asks 40 questions of each file.
License
    MIT.
Citation
    Suzgun et al. 2022, "Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them", arXiv:2210.09261.
Pinned source
    github.com/suzgunmirac/BIG-Bench-Hard at 9ee07bd4; hashes in `pins/bbh.json`.
The paper's numbers
    Exact match, first over the questions of a file, then over the 27 files.
Deviations
    Which 40 questions the paper asked is not known: its script drew them file by file from one seeded stream, in the
    order in which the file system listed the files. Ours draws the same way in alphabetical order. Kept on purpose:
    without a chain of thought the exemplars' answers end in a period; the `paper` scorer cuts an answer at its first
    period and drops punctuation, so that it sees of a bracket only that it is there, and no sign. `strict` reads the
    last announced answer and compares options, numbers with their sign, and brackets. `ext:lm_eval` takes the text as
    the tasks `bbh_cot_fewshot` and `bbh_fewshot` of lm-evaluation-harness do; their prompts differ.

A worked example, as the contract test runs it: the completion `Let's think. So the answer is (B).` to an item whose
target is `(B)` is extracted as `(B)` by all three scorers and is right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import pinned_files
from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.answers import (
    announced,
    announced_of_lm_eval,
    announced_of_paper,
    first_line,
    same_answer,
)
from tulu_pipeline.scoring.exact_match import exact_match
from tulu_pipeline.scoring.flags import text_flags
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore, Sampling, Setting

_ROOT = "https://raw.githubusercontent.com/suzgunmirac/BIG-Bench-Hard/9ee07bd481feebf959a6b59d61ea57bdcf30964d"
_PINS = Path(__file__).with_name("pins") / "bbh.json"
_SAMPLING = Sampling(max_new_tokens=512, stop=("\n\n",))
_PAPER_SUBSET = 40
_SUBSET_SEED = 42
_ANNOUNCES = "So the answer is"


def read_items(files: Mapping[str, Path], setting: Setting) -> Iterator[Item]:
    """The questions, file by file in alphabetical order, in the order they are drawn.

    Options of the setting: `cot` (exemplars with a chain of thought), `subset` (questions drawn of each file; 0, or a
    number not below the file's, asks all in the file's order).
    """
    cot, subset = bool(setting.options["cot"]), int(setting.options["subset"])
    draw = random.Random(_SUBSET_SEED)  # one stream for all files, as in the original
    for task in tasks(files):
        examples = _examples(files[f"bbh/{task}.json"])
        head = _exemplars(files[f"cot-prompts/{task}.txt"], cot)
        asked = draw.sample(range(len(examples)), subset) if 0 < subset < len(examples) else range(len(examples))
        for index in asked:
            question, target = examples[index]
            yield Item(
                item_id=f"{task}/{index}",
                prompts=(f"{head}\n\nQ: {question}",),
                cue="A:",
                gold={"target": target, "cot": cot},
                group=task,
            )


def tasks(files: Mapping[str, Path]) -> list[str]:
    """The tasks that have questions.

    Raises:
        BadInput: one of them has no exemplars.
    """
    names = sorted(name.removeprefix("bbh/").removesuffix(".json") for name in files if name.startswith("bbh/"))
    for name in names:
        if f"cot-prompts/{name}.txt" not in files:
            raise BadInput(f"no file `cot-prompts/{name}.txt`", "bbh", "give each task its exemplars")
    return names


def score(item: Item, completion: Completion, reply: Mapping[str, Any] | None = None) -> ItemScore:
    """`paper`: announced, else the whole text, without case and punctuation. `strict`: see `same_answer`."""
    text, target = completion.texts[0], str(item.gold["target"])
    paper = announced_of_paper(text)
    answer = paper if paper is not None else text.strip()
    # Without a chain of thought nothing is announced: the answer is the first line.
    strict = announced(text) or (None if item.gold["cot"] else first_line(text))
    harness = announced_of_lm_eval(text) if item.gold["cot"] else text.strip()
    return ItemScore(
        item_id=item.item_id,
        group=item.group,
        scores={
            "paper": float(exact_match(answer, target, ignore_case=True, ignore_punctuation=True)),
            "strict": float(strict is not None and same_answer(strict, target)),
            "ext:lm_eval": float(exact_match(harness, target)),
        },
        extracted={"paper": answer, "strict": strict or "", "ext:lm_eval": harness},
        flags=text_flags(completion, answered=strict is not None),
        gold=target,
    )


def _exemplars(path: Path, cot: bool) -> str:
    """The instruction and three exemplars of a file, without its first two lines (a canary and a rule)."""
    *_, text = path.read_text(encoding="utf-8").split("\n", 2)
    if not cot:
        text = "\n\n".join(_without_thought(part, path) for part in text.split("\n\n"))
    return text.strip()


def _without_thought(part: str, path: Path) -> str:
    if not part.startswith("Q:"):
        return part
    question, mark, _ = part.partition("\nA:")
    if not mark or _ANNOUNCES not in part:
        raise BadInput(f"an exemplar without `A:` and `{_ANNOUNCES}`", str(path), "write the exemplar's answer so")
    return f"{question.strip()}\nA: {part.rpartition(_ANNOUNCES)[2].strip()}"


def _examples(path: Path) -> list[tuple[str, str]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["examples"]
        return [(row["input"], row["target"]) for row in rows]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInput(
            f"not a file of questions: {type(error).__name__} {error}",
            str(path),
            'write {"examples": [{"input": …, "target": …}]}, or download the file again',
        ) from error


BENCHMARK = Benchmark(
    name="bbh",
    module=__name__,
    title="BIG-Bench Hard",
    citation="Suzgun et al. 2022, Challenging BIG-Bench Tasks and Whether Chain-of-Thought Can Solve Them, "
    "arXiv:2210.09261",
    license="MIT",
    url="https://github.com/suzgunmirac/BIG-Bench-Hard",
    sources=pinned_files(_PINS, lambda name: f"{_ROOT}/{name}"),
    settings=(
        Setting(
            metric="bbh_direct",
            title="BBH direct (3-shot)",
            sampling=_SAMPLING,
            options={"cot": False, "subset": _PAPER_SUBSET},
        ),
        Setting(
            metric="bbh_cot",
            title="BBH CoT (3-shot)",
            sampling=_SAMPLING,
            options={"cot": True, "subset": _PAPER_SUBSET},
        ),
        Setting(
            metric="bbh_direct_full",
            title="BBH direct, all items",
            sampling=_SAMPLING,
            options={"cot": False, "subset": 0},
            averaged=False,
        ),
        Setting(
            metric="bbh_cot_full",
            title="BBH CoT, all items",
            sampling=_SAMPLING,
            options={"cot": True, "subset": 0},
            averaged=False,
        ),
    ),
    items=read_items,
    score=score,
    prompt_version=1,
    scorer_version=1,
    cluster="task",
    macro=True,
)
