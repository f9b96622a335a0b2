"""Fields that take one of a few names: a misspelled one is an error, not another experiment."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tulu_pipeline.errors import BadInput, unknown_name


def check_choices(spec: object, where: str) -> None:
    """Raises BadInput where a field of a dataclass that is annotated as a `Literal` holds none of its names."""
    kind: Any = type(spec)
    for name, known in _choices(kind):
        value = getattr(spec, name)
        if value not in known:
            hint = unknown_name(name, str(value), (str(each) or '""' for each in known))
            raise BadInput(f"{name} is {value!r}", where, hint.fix)


@cache
def _choices(kind: type[Any]) -> tuple[tuple[str, tuple[object, ...]], ...]:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return tuple((name, get_args(hints[name])) for name in names if get_origin(hints[name]) is Literal)
