"""Licenses of conversations: which of them apply together, and what the well-known ones ask for.

A license is an SPDX id where there is one. `A AND B` is under both, `A OR B` under either. `NOASSERTION` and "" are
unknown. What is said of a license is a short fact for orientation, never advice.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

UNKNOWN = "unknown"
_TOKEN = re.compile(r"\s*([()]|\bAND\b|\bOR\b)\s*")
_SIGNS = {"AND", "OR", "(", ")"}
_CREATIVE_COMMONS = re.compile(r"CC-BY(?P<nc>-NC)?(?P<nd>-ND)?(?P<sa>-SA)?-\d\.\d(-[A-Z]+)?", re.IGNORECASE)
_NOTICE, _SHARE_ALIKE = "keep the notices", "share alike"
_TERMS: Mapping[str, tuple[str, ...]] = {
    "0BSD": (),
    "Apache-2.0": (_NOTICE,),
    "BSD-2-Clause": (_NOTICE,),
    "BSD-3-Clause": (_NOTICE,),
    "CC0-1.0": (),
    "CDLA-Permissive-2.0": (_NOTICE,),
    "GPL-2.0-only": (_NOTICE, _SHARE_ALIKE),
    "GPL-2.0-or-later": (_NOTICE, _SHARE_ALIKE),
    "GPL-3.0-only": (_NOTICE, _SHARE_ALIKE),
    "GPL-3.0-or-later": (_NOTICE, _SHARE_ALIKE),
    "MIT": (_NOTICE,),
    "ODC-By-1.0": ("attribution",),
    "ODbL-1.0": ("attribution", _SHARE_ALIKE),
    "PDDL-1.0": (),
    "Unlicense": (),
}
_ID_OF = {id_.casefold(): id_ for id_ in _TERMS}


def is_allowed(license_: str, allowed: Collection[str]) -> bool:
    """Whether `license_` can be met by licenses of `allowed`, whatever their case.

    `A AND B` needs both, `A OR B` one of them. An unknown license never passes, nor does what is no expression.
    """
    ids = {plain_id(each) for each in allowed} - {UNKNOWN}
    tokens = _tokens(license_)
    try:
        return plain_id(license_) in ids or (_any(tokens, ids) and not tokens)
    except IndexError:
        return False


def parts_of(license_: str) -> tuple[str, ...]:
    """The licenses that `license_` names, each in its usual spelling; `unknown` where it is."""
    named = (plain_id(token) for token in _tokens(license_) if token not in _SIGNS)
    return tuple(dict.fromkeys(named)) or (UNKNOWN,)


def in_words(license_: str) -> str:
    """The expression with each license in its usual spelling."""
    words = (token if token in _SIGNS else plain_id(token) for token in _tokens(license_))
    return " ".join(words).replace("( ", "(").replace(" )", ")") or UNKNOWN


def _tokens(license_: str) -> list[str]:
    return [token for token in _TOKEN.split(license_.strip()) if token]


def _any(tokens: list[str], ids: Collection[str]) -> bool:
    """Whether the alternatives that `tokens` begin with can be met; takes them off. AND binds more tightly."""
    met = _all(tokens, ids)
    while tokens and tokens[0] == "OR":
        del tokens[0]
        met |= _all(tokens, ids)
    return met


def _all(tokens: list[str], ids: Collection[str]) -> bool:
    met = _one(tokens, ids)
    while tokens and tokens[0] == "AND":
        del tokens[0]
        met &= _one(tokens, ids)
    return met


def _one(tokens: list[str], ids: Collection[str]) -> bool:
    if (token := tokens.pop(0)) != "(":
        return plain_id(token) in ids
    met = _any(tokens, ids)
    return tokens.pop(0) == ")" and met


def union(licenses: Iterable[str]) -> tuple[str, ...]:
    """The licenses of a whole by those of its parts: each once, sorted, the unknown last."""
    found = {part for license_ in licenses for part in parts_of(license_)}
    return tuple(sorted(found, key=lambda part: (part == UNKNOWN, part.casefold())))


def of_rows(row_licenses: Iterable[str], dataset_license: str) -> set[str]:
    """The licenses that the rows of a dataset are under: their own, or the dataset's."""
    return {license_ or dataset_license for license_ in row_licenses}


def terms_of(license_: str) -> tuple[str, ...] | None:
    """What one license asks for, in a few words; None where nothing is known here of it."""
    if found := _CREATIVE_COMMONS.fullmatch(license_):
        words = {"nc": "non-commercial", "nd": "no derivatives", "sa": _SHARE_ALIKE}
        return ("attribution", *(word for name, word in words.items() if found[name]))
    return _TERMS.get(plain_id(license_))


def meaning(license_: str) -> str:
    """What one license asks for, for people."""
    terms = terms_of(license_)
    if terms is None:
        return "terms unknown here" if license_ != UNKNOWN else "no license is stated"
    return ", ".join(terms) or "asks for nothing"


def plain_id(license_: str) -> str:
    """A license in the spelling that is compared and shown."""
    if license_.casefold() in {"", "noassertion", "none", UNKNOWN}:
        return UNKNOWN
    if _CREATIVE_COMMONS.fullmatch(license_):
        return license_.upper()
    return _ID_OF.get(license_.casefold(), license_)
