"""Whether two answers are the same text, as the metric `exact_match` of Hugging Face `evaluate` says it."""

from __future__ import annotations

import string

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(
    prediction: str, reference: str, *, ignore_case: bool = False, ignore_punctuation: bool = False
) -> bool:
    """Equality after the asked-for simplifications.

    Only ASCII punctuation is removed, and with it signs and decimal points: with `ignore_punctuation`, "-5" equals
    "5" and "3.5" equals "35". The metric compares numpy strings, which do not keep trailing NUL characters; so
    neither does this.
    """
    return _simplified(prediction, ignore_case, ignore_punctuation) == _simplified(
        reference, ignore_case, ignore_punctuation
    )


def _simplified(text: str, ignore_case: bool, ignore_punctuation: bool) -> str:
    text = text.rstrip("\0")
    if ignore_case:
        text = text.lower()
    if ignore_punctuation:
        text = text.translate(_WITHOUT_PUNCTUATION)
    return text.rstrip("\0")
