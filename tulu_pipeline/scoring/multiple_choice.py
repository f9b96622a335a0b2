"""Choosing one of several letters by their log probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tulu_pipeline.errors import BadInput


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
