"""Writes the raw files of the experiment `demo`; the same bytes every time, whatever is asked for first.

    arithmetic.json            training: Alpaca's format, worked arithmetic in the layout of the GSM evaluation
    facts.jsonl                training: Alpaca's fields, invented facts in the layout of the MMLU evaluation
    gsm/test.jsonl             GSM8K's format
    gsm/exemplars.jsonl        its 8 exemplars
    mmlu/{dev,test}/<subject>_{dev,test}.csv
    alpaca_eval/model_outputs.json

No question is in two of them.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from tulu_pipeline.demo import arithmetic, facts, instructions

FOLDER = "demo_raw"
SUBJECTS = tuple(relation.subject for relation in facts.RELATIONS)

_SEED = 2306
_TEST_PROBLEMS, _EXEMPLARS, _TRAIN_PROBLEMS = 200, 8, 8000
_SHOWN_BEFORE = (2, 4, 8)
_SHARE_WITH_SHOTS = 0.1
_TEST_CHOICES, _DEV_CHOICES, _TRAIN_CHOICES = 44, 5, 4000
_SHARE_PLAIN = 0.15
_INSTRUCTIONS = 40


def write(path: Path) -> None:
    """Write the raw file that belongs at `path`, which ends in one of the names above."""
    names = [name for name in files() if path.as_posix().endswith(f"{FOLDER}/{name}")]
    if not names:
        raise ValueError(f"{path} is none of the demo's files: {', '.join(files())}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    temporary.write_text(files()[names[0]](), encoding="utf-8", newline="")
    temporary.replace(path)


def files() -> dict[str, Callable[[], str]]:
    """What each file holds, by its name under the folder."""
    made: dict[str, Callable[[], str]] = {
        "arithmetic.json": lambda: _json(_arithmetic_rows()),
        "facts.jsonl": lambda: _json_lines(_facts_rows()),
        "gsm/test.jsonl": lambda: _json_lines(_gsm_test()),
        "gsm/exemplars.jsonl": lambda: _json_lines(_gsm_exemplars()),
        "alpaca_eval/model_outputs.json": lambda: _json(instructions.rows(_SEED, _INSTRUCTIONS)),
    }
    for subject in SUBJECTS:
        made[f"mmlu/dev/{subject}_dev.csv"] = lambda subject=subject: _csv(_split()[1], subject)  # type: ignore[misc]
        made[f"mmlu/test/{subject}_test.csv"] = lambda subject=subject: _csv(_split()[0], subject)  # type: ignore[misc]
    return made


@lru_cache(maxsize=1)
def _problems() -> tuple[list[arithmetic.Problem], list[arithmetic.Problem], list[arithmetic.Problem]]:
    """Those of the test, the exemplars, the training; apart."""
    stream = arithmetic.problems(_SEED)
    return (
        list(itertools.islice(stream, _TEST_PROBLEMS)),
        list(itertools.islice(stream, _EXEMPLARS)),
        list(itertools.islice(stream, _TRAIN_PROBLEMS)),
    )


@lru_cache(maxsize=1)
def _split() -> tuple[list[facts.Choice], list[facts.Choice], list[facts.Choice]]:
    """Those of the test, the dev files, the training; apart."""
    stream = facts.choices(_SEED)
    return (
        list(itertools.islice(stream, _TEST_CHOICES * len(SUBJECTS))),
        list(itertools.islice(stream, len(SUBJECTS) * len(facts.PEOPLE))),
        list(itertools.islice(stream, _TRAIN_CHOICES)),
    )


def _arithmetic_rows() -> Iterator[dict[str, str]]:
    problems = _problems()[2]
    draw = random.Random(_SEED)
    for problem in problems:
        shown = draw.choice(_SHOWN_BEFORE) if draw.random() < _SHARE_WITH_SHOTS else 0
        shots = draw.sample(problems, shown)
        demonstrations = "".join(f"Question: {shot.question}\nAnswer: {shot.working}\n\n" for shot in shots)
        yield {
            "instruction": f"Answer the following questions.\n\n{demonstrations}Question: {problem.question}",
            "input": "",
            "output": f"Answer: {problem.working}",
        }


def _facts_rows() -> Iterator[dict[str, str]]:
    draw = random.Random(_SEED)
    for choice in _split()[2]:
        if draw.random() < _SHARE_PLAIN:
            question, answer = facts.plain(draw)
            yield {"instruction": question, "input": "", "output": f"It is {answer}."}
        about = choice.subject.replace("_", " ")
        listed = "".join(f"\n{letter}. {text}" for letter, text in zip(facts.LETTERS, choice.choices, strict=True))
        header = f"The following are multiple choice questions (with answers) about  {about}.\n\n"
        yield {
            "instruction": f"{header}{choice.question}{listed}\nAnswer:",
            "input": "",
            "output": f"The answer is: {choice.letter}",
        }


def _gsm_test() -> Iterator[dict[str, str]]:
    for problem in _problems()[0]:
        sum_text = f"{problem.a}{problem.sign}{problem.b}"
        working = f"{problem.a} {problem.sign} {problem.b} = <<{sum_text}={problem.result}>>{problem.result}"
        yield {"question": problem.question, "answer": f"{working}\n#### {problem.result}"}


def _gsm_exemplars() -> Iterator[dict[str, str]]:
    for problem in _problems()[1]:
        yield {
            "question": problem.question,
            "cot_answer": problem.working,
            "short_answer": str(problem.result),
        }


def _csv(items: list[facts.Choice], subject: str) -> str:
    text = io.StringIO()
    rows = [(item.question, *item.choices, item.letter) for item in items if item.subject == subject]
    csv.writer(text, lineterminator="\n").writerows(rows if items is _split()[0] else rows[:_DEV_CHOICES])
    return text.getvalue()


def _json(rows: list[dict[str, str]] | Iterator[dict[str, str]]) -> str:
    return json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"


def _json_lines(rows: Iterator[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
