"""Files of values: one dataclass instance per line, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tulu_pipeline.errors import BadInput

T = TypeVar("T")
_adapters: dict[type, Any] = {}  # built once per class; pydantic is imported with the first


def to_line(value: object) -> bytes:
    """One line, the newline included; the fields in the order of the class. NaN and infinities become null."""
    line: bytes = _adapter(type(value)).dump_json(value)
    return line + b"\n"


def from_line(line: bytes | str, kind: type[T], where: str) -> T:
    """The value of one line.

    Raises:
        BadInput: no JSON, or not the fields of `kind`.
    """
    from pydantic import ValidationError

    try:
        value: T = _adapter(kind).validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        what = f"`{field}`: {first['msg']}" if field else first["msg"]
        raise BadInput(f"no {kind.__name__}: {what[:1].lower()}{what[1:]}", where, "mend the line") from error
    return value


def whole_characters(text: str) -> str:
    """`text` with U+FFFD for each half of a character (a lone surrogate): JSON can spell one, no file can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def write_lines(path: Path, values: Iterable[object]) -> int:
    """Write `values` to `path`, one line each, and say how many there were."""
    count = 0
    with path.open("wb") as lines:
        for value in values:
            lines.write(to_line(value))
            count += 1
    return count


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """The values of a file, in its order, streamed.

    Raises:
        BadInput: a line that is no `kind`; `where` is path and line number.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield from_line(line, kind, f"{path}:{number}")


def _adapter(kind: type) -> Any:
    if kind not in _adapters:
        from pydantic import TypeAdapter

        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]
