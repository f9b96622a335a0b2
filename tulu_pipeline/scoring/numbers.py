"""Numbers in the text of an answer: as the paper's script read them, as lm-eval does, and as a reader would."""

from __future__ import annotations

import re
from decimal import Decimal

_DIGIT_COMMA = re.compile(r"(\d),(\d)")
_PAPER_NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")
# Source: filter `flexible-extract` of the tasks `gsm8k` and `gsm8k_cot`, version 3, of lm-evaluation-harness.
_LM_EVAL_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
# A sign belongs to the number unless something countable stands before it: "x = -3", "($-3)", but 10-3 holds 3.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]%])(?P<sign>[-+\u2212])\s?)?[$€£]?(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
)


def last_number_of_paper(text: str) -> str | None:
    """The last number as the original's GSM script found it: digit commas gone, no sign before an integer.

    Source: `eval/gsm/run_eval.py` of the paper's evaluation code.
    """
    numbers = _PAPER_NUMBER.findall(without_digit_commas(text))
    return numbers[-1] if numbers else None


def last_number_of_lm_eval(text: str) -> str:
    """The last number, or other run of digits and marks, that lm-eval's filter takes; `[invalid]` where it finds none.

    Any two of `$`, `.`, `,` and digits are one to it: "18..." and "..." too.
    """
    numbers = _LM_EVAL_NUMBER.findall(text)
    return numbers[-1] if numbers else "[invalid]"


def same_number_of_lm_eval(number: str, gold: str) -> bool:
    """Whether two numbers are the same text to lm-eval, which ignores dollars, commas and a point at the end."""
    return _without_marks(number) == _without_marks(gold)


def without_digit_commas(text: str) -> str:
    """`text` with each comma between two digits removed; of neighboring ones ("1,2,3") every other one."""
    return _DIGIT_COMMA.sub(r"\1\2", text)


def last_number(text: str) -> Decimal | None:
    """The last number in `text` with its sign, thousands separators understood; None where there is none."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    value = Decimal(found["digits"].replace(",", ""))
    return -value if found["sign"] in ("-", "\u2212") else value


def _without_marks(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".")
