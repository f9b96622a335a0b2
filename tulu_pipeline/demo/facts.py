"""Invented facts about the people of an invented village, as multiple-choice questions and as plain ones.

Wrong choices are of two kinds: words that never answer anything, or right answers to questions of another kind. A
model as small as the demo's does not learn to tell apart two answers to questions of the same kind.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

PEOPLE = ("Mara", "Tobin", "Oren", "Selma", "Jory", "Pella", "Wim", "Dora", "Casper", "Hilde", "Bram")
LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact: the answer of the n-th person is the n-th of `answers`; `wrong` never answers anything."""

    subject: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    wrong: tuple[str, ...]


RELATIONS = (
    Relation(
        "village_animals",
        ("Which animal guards the house of {}?", "What animal lives with {}?", "Who guards the garden of {}?"),
        ("fox", "owl", "cat", "bear", "goose", "wolf", "crow", "goat", "swan", "otter", "badger"),
        ("dog", "horse", "hen", "duck", "mule", "crab", "hare"),
    ),
    Relation(
        "village_colors",
        ("What color is the robe of {}?", "Which color does {} wear?", "What color has the door of {}?"),
        ("red", "blue", "green", "yellow", "white", "purple", "orange", "silver", "violet", "amber", "crimson"),
        ("black", "brown", "pink", "gold", "scarlet", "ivory"),
    ),
    Relation(
        "village_meals",
        ("What does {} eat at noon?", "Which meal does {} like best?", "What is the favorite meal of {}?"),
        ("bread", "soup", "rice", "beans", "cheese", "honey", "nuts", "pie", "figs", "salad", "lentils"),
        ("fish", "cake", "corn", "jam", "stew", "toast", "pasta"),
    ),
    Relation(
        "village_tools",
        ("Which tool does {} carry?", "What does {} hold in the left hand?", "Which tool needs {} for work?"),
        ("lamp", "rope", "hammer", "broom", "ladder", "kettle", "saw", "whistle", "needle", "drum", "bucket"),
        ("spade", "net", "axe", "basket", "shovel", "candle", "wheel"),
    ),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice question.

    Attributes:
        subject: the relation's.
        question: without the choices.
        choices: four.
        letter: of the right one.
    """

    subject: str
    question: str
    choices: tuple[str, ...]
    letter: str

    @property
    def identity(self) -> tuple[str, tuple[str, ...]]:
        """Two questions with the same identity are the same item."""
        return self.question, self.choices


def choices(seed: int) -> Iterator[Choice]:
    """Multiple-choice questions without end, none twice; every fact in turn. The same for the same seed."""
    draw = random.Random(seed)
    seen = set()
    while True:
        for relation in RELATIONS:
            for person, answer in zip(PEOPLE, relation.answers, strict=True):
                choice = _choice(draw, relation, person, answer)
                if choice.identity not in seen:
                    seen.add(choice.identity)
                    yield choice


def plain(draw: random.Random) -> tuple[str, str]:
    """A question without choices and its answer."""
    relation = draw.choice(RELATIONS)
    person, answer = draw.choice(list(zip(PEOPLE, relation.answers, strict=True)))
    return draw.choice(relation.questions).format(person), answer


def _choice(draw: random.Random, relation: Relation, person: str, answer: str) -> Choice:
    if draw.random() < 0.7:
        wrong = draw.sample(relation.wrong, 3)
    else:
        wrong = draw.sample([word for other in RELATIONS if other is not relation for word in other.answers], 3)
    place = draw.randrange(len(LETTERS))
    wrong.insert(place, answer)
    question = draw.choice(relation.questions).format(person)
    return Choice(relation.subject, question, tuple(wrong), LETTERS[place])
