"""AlpacaEval's annotators: a chat model ranks two answers, in an order that the instruction decides.

Template, order, parsing and equal answers are those of the library (alpaca-eval 0.3.1 to 0.6.6). One thing is not: the
template is cut into messages before the texts are put in, so that nothing in a text can end a message, begin another,
or take the place of another text. Where no text holds such marks, the messages are the library's to the byte.
"""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from tulu_pipeline.api.requests import Message, Role
from tulu_pipeline.errors import BadInput

Preference = Literal[1, 2]
SLOTS = ("instruction", "output_1", "output_2")

_START, _END = "<|im_start|>", "<|im_end|>"
_SLOT = re.compile(r"{([^ \s]+?)}")
_ROLES = frozenset({"system", "user", "assistant"})


@dataclass(frozen=True, slots=True)
class _Piece:
    role: Role
    name: str
    template: str


class Template:
    """A ChatML template with a place for the instruction and for each of two outputs.

    Args:
        text: the template.
        where: its file, for errors.

    Raises:
        BadInput: no ChatML, an unknown role, or not each place once.
    """

    def __init__(self, text: str, where: str) -> None:
        whole = text.strip()
        if not (whole.startswith(_START) and whole.endswith(_END)):
            raise BadInput("no ChatML", where, f"begin with {_START} and end with {_END}")
        self._pieces = tuple(_piece(part, where) for part in whole.split(_START)[1:])
        places = [slot for piece in self._pieces for slot in _SLOT.findall(piece.template)]
        if sorted(places) != sorted(SLOTS):
            raise BadInput(f"places for {', '.join(places) or 'nothing'}", where, f"one each for {', '.join(SLOTS)}")

    def messages(self, instruction: str, output_1: str, output_2: str) -> tuple[Message, ...]:
        """The messages about one pair."""
        texts = {"instruction": instruction, "output_1": output_1, "output_2": output_2}
        return tuple(
            Message(role=piece.role, name=piece.name, content=_filled(piece.template, texts)) for piece in self._pieces
        )


def switched(instruction: str, seed: int) -> bool:
    """Whether the model's output comes first, and the reference's second."""
    # Python's generator by a text's hash is the library's rule; nothing here is secret.
    dice = random.Random("is_switched_outputs" + instruction + str(seed))
    return dice.choices([False, True], k=1)[0]


def parse_ranking(completion: str) -> Preference | None:
    """Which of the two has rank 1, of a list of `{"model": …, "rank": …}`; None where that cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            ranks = [each["rank"] for each in ast.literal_eval(completion) if each["model"] == "model_1"]
        return cast("Preference", int(ranks[0])) if ranks[0] in (1, 2) else None
    except (ValueError, SyntaxError, TypeError, KeyError, IndexError, AttributeError, RecursionError, MemoryError):
        return None


def preference_of(completion: str, *, model_first: bool) -> Preference | None:
    """1 for the reference, 2 for the model; None where the reply cannot be read."""
    rank = parse_ranking(completion)
    if rank is None or not model_first:
        return rank
    return 2 if rank == 1 else 1


def combined(preferences: Mapping[bool, Preference | None]) -> dict[str, Any]:
    """The reply of one or both orders: the mean preference, and whether the order decided it.

    Args:
        preferences: by whether the model came first.
    """
    known = [each for each in preferences.values() if each is not None]
    if len(known) < len(preferences):
        return {"preference": None}
    reply: dict[str, Any] = {"preference": known[0] if len(set(known)) == 1 else 1.5}
    return reply | ({"flipped": len(set(known)) > 1} if len(preferences) > 1 else {})


def _piece(part: str, where: str) -> _Piece:
    head, _, rest = part.partition("\n")
    role, _, extra = head.strip().partition(" ")
    if role not in _ROLES:
        raise BadInput(f"a message of `{role}`", where, f"write one of {', '.join(sorted(_ROLES))}")
    name = dict(pair.split("=", 1) for pair in extra.split() if "=" in pair).get("name", "")
    return _Piece(cast("Role", role), name, rest.split(_END, 1)[0])


def _filled(template: str, texts: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda found: texts[found.group(1)], template).strip()
