"""Choosing one of several letters by their log probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.benchmark import Completion


def chosen(completion: Completion, choices: Sequence[str]) -> str:
    """The choice that a completion made: by log probabilities, or as a text where a server told none; "" for none.

    Raises:
        BadInput: a choice has no log probability.
    """
    if not completion.texts:
        return most_likely(completion.choice_logprobs, choices)
    text = completion.texts[0].strip()
    return text if text in choices else ""


def most_likely(choice_logprobs: Mapping[str, float], choices: Sequence[str]) -> str:
    """The choice with the highest log probability; of equal ones the first in `choices`.

    Raises:
        BadInput: a choice has no log probability.
    """
    missing = [choice for choice in choices if choice not in choice_logprobs]
    if missing:
        raise BadInput(
            f"no log probability of {', '.join(f'`{choice}`' for choice in missing)}",
            f"choices {', '.join(choices)}",
            "generate the completions anew",
        )
    return max(choices, key=lambda choice: choice_logprobs[choice])
