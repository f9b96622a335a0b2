"""Numbers in the text of an answer: as the paper's script read them, and as a reader would."""

from __future__ import annotations

import re
from decimal import Decimal

_DIGIT_COMMA = re.compile(r"(\d),(\d)")
_PAPER_NUMBER = re.compile(r"[-+]?\d*\.\d+|\d+")
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
