"""What was odd about a completion, in words that tables count."""

from __future__ import annotations

from tulu_pipeline.specs.benchmark import Completion


def text_flags(completion: Completion, *, answered: bool = True) -> tuple[str, ...]:
    """Flags of generated texts.

    `empty`: a text is nothing but white space. `truncated`: a text ran into the cap of new tokens.
    `no_answer_found`: `answered` is False, the scorer found nothing to compare.
    """
    found = {
        "empty": any(not text.strip() for text in completion.texts),
        "no_answer_found": not answered,
        "truncated": "length" in completion.finish_reasons,
    }
    return tuple(flag for flag, holds in found.items() if holds)
