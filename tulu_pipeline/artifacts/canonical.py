"""Values to one canonical text, so that equal values hash alike on every machine and in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from decimal import Decimal
from enum import Enum
from typing import Any

from tulu_pipeline.errors import BadInput

_OMIT = "omit_from_key_while_default"


def added_field(*, default: Any) -> Any:
    """A dataclass field that came later: left out of the key while it equals `default`.

    `default` must reproduce what the code did before the field existed; old artifacts then keep their keys.
    """
    return dataclasses.field(default=default, metadata={_OMIT: True})


def execution_field(*, default: Any) -> Any:
    """A dataclass field that never enters a key: a callable, a title, a worked example."""
    return dataclasses.field(default=default, metadata={"execution": True}, compare=False)


def canonical_json(value: object) -> str:
    """One text per value: keys sorted, no white space, non-ASCII kept.

    Accepts None, bool, int, finite float, str, Decimal, Enum, tuple, list, dict with string keys, sets of one
    scalar type, and dataclass instances.

    Raises:
        BadInput: for NaN, infinities, mixed-type sets, paths, callables and whatever else has no stable form;
            `where` is the path of the field.
    """
    return json.dumps(to_plain(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def to_plain(value: object, where: str = "$") -> Any:
    """The JSON-shaped form of `value` that `canonical_json` writes."""
    if value is None or (isinstance(value, bool | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return to_plain(value.value, where)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(f"`{value}` has no stable form", where)
        return value
    if isinstance(value, Decimal):
        return {"decimal": str(value.normalize())}
    if isinstance(value, tuple | list):
        return [to_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_string_key(key, where): to_plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return _plain_set(value, where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_dataclass(value, where)
    raise _refused(f"a {type(value).__name__} has no stable form", where)


def sha256_text(text: str) -> str:
    """Hex sha256 of `text` as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _plain_dataclass(value: Any, where: str) -> dict[str, Any]:
    plain = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.metadata.get("execution") or (field.metadata.get(_OMIT) and item == field.default):
            continue
        plain[field.name] = to_plain(item, f"{where}.{field.name}")
    return plain


def _plain_set(value: set[Any] | frozenset[Any], where: str) -> list[Any]:
    kinds = {type(item) for item in value}
    if len(kinds) > 1 or not kinds <= {str, int}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise _refused(f"a set of {names} has no stable order", where)
    return sorted(value)


def _string_key(key: object, where: str) -> str:
    if type(key) is not str:
        raise _refused(f"a dict key of type {type(key).__name__}", where)
    return key


def _refused(what: str, where: str) -> BadInput:
    return BadInput(
        f"{what}, so it cannot be part of a key", where, "use plain numbers, strings, tuples or frozen dataclasses"
    )
