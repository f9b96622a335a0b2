"""Answers that a text announces: as the original's BBH script found them, as lm-eval does, and as a reader would."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

# Source: `eval/bbh/run_eval.py` of the paper's evaluation code, second version. The class holds a stray `|`.
_PAPER = re.compile(r"[t|T]he answer is (.*?)\.")
# Source: task `bbh_cot_fewshot`, version 4, of lm-evaluation-harness. The last dot is any character.
_LM_EVAL = re.compile(r"(?<=the answer is )(.*)(?=.)")
_ANNOUNCES = re.compile(r"\bthe answer is:?", re.IGNORECASE)
_LETTER = re.compile(r"\((?P<letter>[A-Z])\)(?:\s.*)?", re.DOTALL)
_BRACKETS = re.compile(r"[\s()\[\]{}<>]+")


def announced_of_paper(text: str) -> str | None:
    """What stands between the first `the answer is` and the next period."""
    found = _PAPER.search(text)
    return found[1].strip() if found else None


def announced_of_lm_eval(text: str) -> str:
    """What lm-eval's filter takes from a chain of thought; `[invalid]` where it finds nothing."""
    found = _LM_EVAL.findall(text)
    return found[0].strip() if found else "[invalid]"


def announced(text: str) -> str | None:
    """What the last `the answer is` of a text announces, to the end of its line, without marks around it."""
    found = list(_ANNOUNCES.finditer(text))
    return _bare(text[found[-1].end() :].partition("\n")[0]) or None if found else None


def first_line(text: str) -> str | None:
    """The first line of a text, without marks around it; None of an empty text."""
    lines = text.strip().splitlines()
    return _bare(lines[0]) or None if lines else None


def same_answer(answer: str, target: str) -> bool:
    """Whether an answer says what the target does.

    An option may be written out or not ("(B)", "B", "(B) two"), numbers are compared by value and with their sign,
    brackets one by one, anything else without case and with any white space.
    """
    if option := _LETTER.fullmatch(target):
        given = _LETTER.fullmatch(answer)
        return (given["letter"] if given else answer.upper()) == option["letter"]
    if _BRACKETS.fullmatch(target):
        return "".join(answer.split()) == "".join(target.split())
    wanted, found = _number(target), _number(answer)
    if wanted is not None:
        return found == wanted
    return " ".join(answer.split()).casefold() == " ".join(target.split()).casefold()


def _bare(answer: str) -> str:
    """Without emphasis, quotes and the period at its end."""
    answer = answer.strip().strip("*_`\"'").strip()
    while answer.endswith("."):
        answer = answer[:-1].rstrip().strip("*_`\"'").rstrip()
    return answer


def _number(text: str) -> Decimal | None:
    try:
        value = Decimal(text.replace(",", "").replace("\u2212", "-").strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
