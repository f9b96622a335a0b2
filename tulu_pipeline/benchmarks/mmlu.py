"""MMLU: multiple-choice questions over 57 subjects, 0-shot and 5-shot, answered by the likeliest letter.

What it is
    14,042 test questions with four choices; the exemplars are the first rows of the subject's dev file. The model is
    not asked to write: the probabilities of the four letters as the next token are compared. The settings with
    `_as_written` ask the same with every choice as the files have it.
License
    MIT.
Citation
    Hendrycks et al. 2021, "Measuring Massive Multitask Language Understanding", ICLR, arXiv:2009.03300.
Pinned source
    The files of the published `data.tar`, as kept by github.com/aiomodel/chain-of-thought-hub at d370edcd; hashes in
    `pins/mmlu.json`.
The paper's numbers
    Accuracy over all questions (not over subjects); the paper calls it EM.
Deviations
    A prompt must be shorter than the model's context by the one token that is asked for; the original compared at
    most 2,048 with no token to spare. A question too long without exemplars is an error; there the original loops.
    Kept on purpose: two spaces between `about` and the subject; the header without exemplars; the choice `None` reads
    `nan`. The original reads the files with pandas, whose version it does not say; every version since April 2023, two
    months before its first commit, takes that text for a missing value. It concerns ten test questions:
    college_computer_science/10 and /94, college_mathematics/8, /21 and /60, college_physics/60,
    electrical_engineering/41, /68, /107 and /117. No scorer could mend that: the settings `_as_written` do.

A worked example, as the contract test runs it: log probabilities {A: -1.2, B: -0.4, C: -3, D: -2.5} extract as `B`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import pinned_files
from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.multiple_choice import chosen
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore, Sampling, Setting

LETTERS = ("A", "B", "C", "D")
_ROOT = (
    "https://raw.githubusercontent.com/aiomodel/chain-of-thought-hub/d370edcd73d2ef5d8ca83f13ddb3c46c97925333/MMLU/data"
)
_PINS = Path(__file__).with_name("pins") / "mmlu.json"
_SAMPLING = Sampling(max_new_tokens=1)
_MAX_PROMPT_TOKENS = 2048

# What pandas 2 takes for a missing value where a file does not say what is missing, and what it prints then.
_MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
_PRINTED_MISSING = "nan"


def read_items(files: Mapping[str, Path], setting: Setting) -> Iterator[Item]:
    """All questions, subject by subject in alphabetical order, in the order of the file.

    The subjects are those that have a `test/<subject>_test.csv`. Each item carries its prompt with `shots` exemplars
    first, then with one less, down to none.

    Options of the setting: `shots`, `as_written` (choices are the text of the file; else what pandas makes of it).
    """
    shots, as_written = int(setting.options["shots"]), bool(setting.options["as_written"])
    for subject in subjects(files):
        header = f"The following are multiple choice questions (with answers) about  {subject.replace('_', ' ')}.\n\n"
        exemplars = []
        if shots:
            rows = _rows(files, f"dev/{subject}_dev.csv")
            exemplars = [
                f"{_question(row, as_written)} {row[5]}\n\n" for _, row in zip(range(shots), rows, strict=False)
            ]
        heads = [header + "".join(exemplars[:kept]) for kept in range(len(exemplars), -1, -1)]
        for index, row in enumerate(_rows(files, f"test/{subject}_test.csv")):
            question = _question(row, as_written)
            yield Item(
                item_id=f"{subject}/{index}",
                prompts=tuple(head + question for head in heads),
                cue_tuned="The answer is:",
                choices=LETTERS,
                gold=row[5],
                group=subject,
            )


def subjects(files: Mapping[str, Path]) -> list[str]:
    """The subjects that have a test file."""
    names = (name.removeprefix("test/") for name in files if name.startswith("test/"))
    return sorted(name.removesuffix("_test.csv") for name in names if name.endswith("_test.csv"))


def score(item: Item, completion: Completion, reply: Mapping[str, Any] | None = None) -> ItemScore:
    """Whether the likeliest letter is the right one; `paper` and `strict` agree."""
    answer = chosen(completion, item.choices)
    right = float(answer == item.gold)
    return ItemScore(
        item_id=item.item_id,
        group=item.group,
        scores={"paper": right, "strict": right},
        extracted={"paper": answer, "strict": answer},
        flags=() if answer else ("no_answer_found",),
        gold=str(item.gold),
    )


def _question(row: Sequence[str], as_written: bool) -> str:
    texts = [_PRINTED_MISSING if text in _MISSING and not as_written else text for text in row[1:5]]
    choices = "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=True))
    return f"{row[0]}{choices}\nAnswer:"


def _rows(files: Mapping[str, Path], name: str) -> Iterator[list[str]]:
    if name not in files:
        raise BadInput(f"no file `{name}`", "mmlu", "give every subject a dev and a test file")
    path = files[name]
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        for row in reader:
            if len(row) != 6 or row[5] not in LETTERS:
                raise BadInput(
                    f"a row of {len(row)} fields, ending in `{row[-1] if row else ''}`",
                    f"{path}:{reader.line_num}",
                    "write question, four choices and the letter of the right one",
                )
            yield row


def _setting(metric: str, title: str, *, shots: int, as_written: bool = False) -> Setting:
    return Setting(
        metric=metric,
        title=title,
        sampling=_SAMPLING,
        options={"shots": shots, "as_written": as_written, "max_prompt_tokens": _MAX_PROMPT_TOKENS},
        averaged=not as_written,
    )


BENCHMARK = Benchmark(
    name="mmlu",
    module=__name__,
    title="MMLU",
    citation="Hendrycks et al. 2021, Measuring Massive Multitask Language Understanding, ICLR, arXiv:2009.03300",
    license="MIT",
    url="https://github.com/hendrycks/test",
    sources=pinned_files(_PINS, lambda name: f"{_ROOT}/{name}"),
    settings=(
        _setting("mmlu_0shot", "MMLU (0-shot)", shots=0),
        _setting("mmlu_5shot", "MMLU (5-shot)", shots=5),
        _setting("mmlu_0shot_as_written", "MMLU (0-shot), choices as written", shots=0, as_written=True),
        _setting("mmlu_5shot_as_written", "MMLU (5-shot), choices as written", shots=5, as_written=True),
    ),
    items=read_items,
    score=score,
    prompt_version=2,
    scorer_version=1,
    cluster="subject",
)
