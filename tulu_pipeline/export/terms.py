"""What stands between a finetuned model and others: licenses of its parts that ask for more than can be seen to.

Whether a model is derived from the data it saw is disputed. Here it is treated as if it were, so that whoever publishes
one has looked. What is said is a short fact for orientation, never advice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tulu_pipeline.mixing.licenses import UNKNOWN, parts_of, plain_id, terms_of

_EXPRESSION = (" AND ", " OR ")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a license of a part does not let the whole be published as it is.

    Attributes:
        license: by its usual spelling.
        parts: what is under it.
        why: in a few words.
    """

    license: str
    parts: tuple[str, ...]
    why: str


def named_licenses(license_: str) -> tuple[str, ...]:
    """The licenses of a base model: the parts of an SPDX expression, else the one name, parentheses and all."""
    if any(sign in license_ for sign in _EXPRESSION):
        return parts_of(license_)
    return (plain_id(license_),)


def obstacles(
    licenses: Mapping[str, Iterable[str]], *, stated: str = "", accepted: Collection[str] = ()
) -> list[Obstacle]:
    """What has to be settled before a model may be published.

    Args:
        licenses: of each part (base model, datasets), one id each.
        stated: the license that the model is published under; "" for none.
        accepted: licenses that whoever publishes has read and can meet.
    """
    parts: dict[str, list[str]] = {}
    for part, found in licenses.items():
        for license_ in found:
            parts.setdefault(license_, []).append(part)
    settled = {plain_id(each) for each in accepted}
    reasons = {license_: _why(license_, plain_id(stated)) for license_ in parts}
    return [
        Obstacle(license_, tuple(parts[license_]), why)
        for license_, why in sorted(reasons.items())
        if why and license_ not in settled
    ]


def _why(license_: str, stated: str) -> str:
    if license_ == UNKNOWN:
        return "no license is stated, so nobody is known to have allowed it"
    terms = terms_of(license_)
    if terms is None:
        return "its terms are not known here"
    if "no derivatives" in terms:
        return "it forbids to pass on what is derived from it"
    if "share alike" in terms and stated != license_:
        return f"it asks for the same license: state it with --license {license_}"
    if "non-commercial" in terms and stated != UNKNOWN and "non-commercial" not in (terms_of(stated) or ()):
        return f"it asks for non-commercial use, which {stated} does not"
    return ""
