"""Sums and differences of numbers up to 10, in words and with their working."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

NAMES = ("Tom", "Ann", "Ben", "Eva", "Max", "Lily", "Sam", "Nina", "Leo", "Rosa", "Paul", "Kate", "Hugo", "Ida")
THINGS = (
    *("apples", "pears", "plums", "books", "pens", "coins", "shells", "stones", "cards", "stamps", "eggs", "cups"),
    *("balls", "keys", "seeds", "ribbons", "buttons", "marbles", "cookies", "flowers"),
)
_SUMS = (
    "{name} has {a} {things}. {friend} gives {name} {b} more {things}. How many {things} does {name} have now?",
    "{name} buys {a} {things} in the morning and {b} {things} in the evening. How many {things} does {name} buy?",
    "There are {a} {things} on the table. {name} puts {b} more there. How many {things} are on the table now?",
    "{name} has {a} {things} and {friend} has {b} {things}. How many {things} do they have altogether?",
    "{name} finds {a} {things} in the garden and {b} {things} in the house. How many {things} does {name} find?",
)
_DIFFERENCES = (
    "{name} has {a} {things}. {name} gives {b} {things} to {friend}. How many {things} does {name} have left?",
    "There are {a} {things} in the basket. {name} takes {b} of them. How many {things} remain?",
    "{name} has {a} {things} and {friend} has {b} {things}. How many more {things} does {name} have than {friend}?",
    "{name} had {a} {things} and lost {b} of them. How many {things} does {name} have now?",
)
_LARGEST = 10


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and the two numbers in it."""

    question: str
    a: int
    b: int
    sign: Literal["+", "-"]

    @property
    def result(self) -> int:
        """The answer."""
        return self.a + self.b if self.sign == "+" else self.a - self.b

    @property
    def working(self) -> str:
        """The answer with its working, in the layout of the evaluation's exemplars."""
        return f"{self.a} {self.sign} {self.b} = {self.result}. So the answer is {self.result}."


def problems(seed: int) -> Iterator[Problem]:
    """Problems without end, no question twice; the same for the same seed."""
    draw = random.Random(seed)
    seen = set()
    while True:
        problem = _problem(draw)
        if problem.question not in seen:
            seen.add(problem.question)
            yield problem


def _problem(draw: random.Random) -> Problem:
    index = draw.randrange(len(_SUMS) + len(_DIFFERENCES))
    sign: Literal["+", "-"] = "+" if index < len(_SUMS) else "-"
    template = (*_SUMS, *_DIFFERENCES)[index]
    a = draw.randint(2, _LARGEST)
    b = draw.randint(2, _LARGEST) if sign == "+" else draw.randint(1, a - 1)
    name, friend = draw.sample(NAMES, 2)
    question = template.format(name=name, friend=friend, things=draw.choice(THINGS), a=a, b=b)
    return Problem(question, a, b, sign)
