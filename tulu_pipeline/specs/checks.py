"""Fields of values that people write: what does not fit one is an error at once, and not another experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tulu_pipeline.errors import BadInput, unknown_name

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", NoneType: "None"}


def check_choices(spec: object, where: str) -> None:
    """Raises BadInput where a field of a dataclass that is annotated as a `Literal` holds none of its names."""
    for name, hint in _hints(spec).items():
        value, known = getattr(spec, name), get_args(hint)
        if get_origin(hint) is Literal and value not in known:
            error = unknown_name(name, str(value), (str(each) or '""' for each in known))
            raise BadInput(f"{name} is {value!r}", where, error.fix)


def check_types(spec: object, where: str) -> None:
    """Raises BadInput where a field of a dataclass holds something else than it is annotated with.

    Tuples and mappings are looked into, other values are taken by their class.
    """
    for name, hint in _hints(spec).items():
        for place, value, wanted in _misfits(getattr(spec, name), hint, name):
            single = get_origin(wanted) is tuple and not isinstance(value, list | tuple | set)
            comma = "; a comma ends one of a single value: `(value,)`" if single else ""
            raise BadInput(f"{place} is {_shown(value)}", where, f"write {_called(wanted)}{comma}")


def _hints(spec: object) -> dict[str, Any]:
    kind: Any = type(spec)
    return _hints_of(kind)


@cache
def _hints_of(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _misfits(value: object, hint: Any, place: str) -> Iterator[tuple[str, object, Any]]:
    """(place, value, what is wanted there), the innermost that can be told."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, tuple) and parts[1:] == (Ellipsis,):
        for index, each in enumerate(value):
            yield from _misfits(each, parts[0], f"{place}[{index}]")
    elif origin is Mapping and isinstance(value, Mapping):
        for key, each in value.items():
            yield from _misfits(key, parts[0], f"a key of {place}")
            yield from _misfits(each, parts[1], f"{place}[{key!r}]")
    elif not _fits(value, hint):
        yield place, value, hint


def _fits(value: object, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    kind = origin or hint
    if not isinstance(kind, type):
        return True
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _called(hint: Any) -> str:
    """In words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple:
        return f"a tuple of {_plain(parts[0])}"
    if origin is Mapping:
        return f"a mapping of {_plain(parts[0])} to {_plain(parts[1])}"
    if origin in (Union, UnionType):
        return " or ".join(_called(part) for part in parts)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, parts))
    return _WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _plain(hint: Any) -> str:
    """Many of it."""
    if get_origin(hint) is tuple:
        return f"tuples of {_plain(get_args(hint)[0])}"
    return {str: "texts", int: "whole numbers"}.get(hint, f"{getattr(hint, '__name__', hint)} values")


def _shown(value: object) -> str:
    text, kind = repr(value), type(value).__name__
    return f"of type {kind}" if len(text) > 40 else f"{text} ({kind})"
