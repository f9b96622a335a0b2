"""What was odd about a completion, in words that tables count."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tulu_pipeline.specs.benchmark import Completion

# What every table counts of every column, by the names of the flags; benchmarks have others beside them.
COUNTED_FLAGS = ("no_answer_found", "empty", "truncated", "refused")

_DECLINES = re.compile(
    r"""\W*
    (?:(?:(?:i['’]?m|i\ am)\ (?:very\ |so\ )?sorry|sorry|i\ apologi[sz]e|unfortunately|as\ an?\ ai\b[^.\n]{0,40}?)
    ,?\ (?:but\ )?){0,2}
    i(?:['’]m|\ am)?\ (?:cannot|can['’]?t|can\ not|unable\ to|not\ able\ to|won['’]t)\ (?:to\ )?
    (?:access|answer|assist|browse|complete|comply|create|discuss|do\ (?:that|this)|engage|fulfil+|generate|give|help
    |offer|open|predict|provide|see|share|support|write)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def text_flags(completion: Completion, *, answered: bool = True) -> tuple[str, ...]:
    """Flags of generated texts.

    `empty`: a text is nothing but white space. `truncated`: a text ran into the cap of new tokens.
    `no_answer_found`: `answered` is False, the scorer found nothing to compare. `refused`: a text begins by declining
    to answer, in English; a heuristic, which scores do not look at.
    """
    found = {
        "empty": any(not text.strip() for text in completion.texts),
        "no_answer_found": not answered,
        "refused": any(_DECLINES.match(text) for text in completion.texts),
        "truncated": "length" in completion.finish_reasons,
    }
    return tuple(flag for flag, holds in found.items() if holds)


def flag_order(flags: Iterable[str]) -> list[str]:
    """What every table counts first, the others by name."""
    found = set(flags)
    return [flag for flag in COUNTED_FLAGS if flag in found] + sorted(found - set(COUNTED_FLAGS))
