"""Values to one canonical text, so that equal values hash alike on every machine and in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from decimal import Context, Decimal
from enum import Enum
from functools import cache
from typing import Any

from tulu_pipeline.errors import BadInput

_OMIT = "omit_from_key_while_default"
_EXECUTION = "execution"


def added_field(*, default: Any) -> Any:
    """A dataclass field that came later: left out of the key while it equals `default`.

    `default` must reproduce what the code did before the field existed; old artifacts then keep their keys.
    """
    return dataclasses.field(default=default, metadata={_OMIT: True})


def execution_field(*, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that never enters a key: a callable, a title, a worked example."""
    return dataclasses.field(default=default, metadata={_EXECUTION: True}, compare=False)


def canonical_json(value: object) -> str:
    """One text per value: keys sorted, no white space, non-ASCII kept.

    Accepts None, bool, int, finite float, str, Decimal, Enum, tuple, list, dict with string keys, sets of one
    scalar type, and dataclass instances, whose class does not count. 1, 1.0 and True are three values.

    Raises:
        BadInput: for NaN, infinities, mixed-type sets, paths, callables and whatever else has no stable form;
            `where` is the path of the field.
    """
    return text_of_plain(to_plain(value))


def text_of_plain(plain: object) -> str:
    """The canonical text of what `to_plain` gave."""
    return _encoder.encode(plain)


def to_plain(value: object, where: str = "$") -> Any:
    """The JSON-shaped form of `value` that `canonical_json` writes."""
    try:
        return _plain(value)
    except _Refused as refused:
        raise BadInput(
            f"{refused.what}, so it cannot be part of a key",
            where + "".join(reversed(refused.path)),
            "use plain numbers, strings, tuples or frozen dataclasses",
        ) from None


def sha256_text(text: str) -> str:
    """Hex sha256 of `text` as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


class _Refused(Exception):
    """Raised where the value is; each container on the way up adds its part of the path."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what, self.path = what, list[str]()


def _plain(value: object) -> Any:
    kind = type(value)
    if isinstance(value, str) and kind is str:
        return value if value.isascii() else _encodable(value)
    if value is None or kind is int or kind is bool:
        return value
    if isinstance(value, dict):
        return _plain_dict(value)
    if isinstance(value, tuple | list):
        return _plain_list(value)
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Refused(f"`{value}` has no stable form")
        return float(value) + 0.0  # -0.0 becomes 0.0, which it equals
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_dataclass(value)
    if isinstance(value, set | frozenset):
        return _plain_set(value)
    if isinstance(value, Decimal):
        return _plain_decimal(value)
    raise _Refused(f"a {kind.__name__} has no stable form")


def _plain_dict(value: dict[Any, Any]) -> dict[str, Any]:
    plain = {}
    for key in value:
        if type(key) is not str:
            raise _Refused(f"a dict key of type {type(key).__name__}")
        if not key.isascii():
            _encodable(key)
    try:
        for key, item in value.items():
            plain[key] = _plain(item)
    except _Refused as refused:
        refused.path.append(f".{key}")
        raise
    return plain


def _plain_list(value: Iterable[object]) -> list[Any]:
    plain = []
    try:
        for item in value:
            plain.append(_plain(item))  # noqa: PERF401 - the error tells the index
    except _Refused as refused:
        refused.path.append(f"[{len(plain)}]")
        raise
    return plain


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Refused(f"the text {value!r} with a lone surrogate has no stable form") from None
    return str(value)


def _plain_dataclass(value: Any) -> dict[str, Any]:
    plain = {}
    name = ""
    try:
        for name, default in _identity_fields(type(value)):  # type: ignore[arg-type]  # a class is hashable
            item = _plain(getattr(value, name))
            if default is dataclasses.MISSING or text_of_plain(item) != default:
                plain[name] = item
    except _Refused as refused:
        refused.path.append(f".{name}")
        raise
    return plain


@cache
def _identity_fields(kind: type) -> tuple[tuple[str, Any], ...]:
    """Fields that enter a key, each with the text of the default that leaves it out, or MISSING."""
    return tuple(
        (field.name, canonical_json(field.default) if field.metadata.get(_OMIT) else dataclasses.MISSING)
        for field in dataclasses.fields(kind)
        if not field.metadata.get(_EXECUTION)
    )


def _plain_set(value: set[Any] | frozenset[Any]) -> list[Any]:
    kinds = {type(item) for item in value}
    if len(kinds) > 1 or not kinds <= {str, int}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise _Refused(f"a set of {names} has no stable order")
    return _plain_list(sorted(value))


def _plain_decimal(value: Decimal) -> dict[str, str]:
    if not value.is_finite():
        raise _Refused(f"`{value}` has no stable form")
    exact = Context(prec=len(value.as_tuple().digits))
    return {"decimal": str(value.normalize(exact)) if value else "0"}


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
