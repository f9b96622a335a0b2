"""Raw files as streams of rows: a JSON array, JSON lines, tab-separated values; also compressed by gzip (`.gz`).

A reader goes through the files of a dataset in the order of its sources. A row that cannot be parsed becomes a
`BrokenRow`, and reading goes on behind it; a file of which an unknown number of rows cannot be read is a `BadInput`.
Bytes that are not UTF-8 become lone surrogates, so that the one row that holds them can be dropped.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.dataset import BrokenRow, RawRow

_CHUNK_CHARACTERS = 1 << 20
_SHOWN_CHARACTERS = 200
_SPACES = " \t\r\n"
_SPACE = re.compile(f"[{_SPACES}]*")
_FIRST_KEY = re.compile(rf'{{[{_SPACES}]*"([^"\\]*)"[{_SPACES}]*:')
_NEXT_ROW = re.compile(r",[ \t\r\n]*(?=[{\[])")


def read_json_arrays(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """The elements of one JSON array per file; ids are running numbers over all files."""
    number = 0
    for name, path in files.items():
        with _open(path) as stream:
            for line, value in _elements(_Window(stream), name):
                yield _row(number, f"{name}:{line}", value)
                number += 1


def read_json_lines(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """One JSON value per line; blank lines are skipped; ids are running numbers over all files."""
    number = 0
    for name, path in files.items():
        for row in json_lines(name, _lines(path), first=number):
            yield row
            number += 1


def json_lines(name: str, lines: Iterable[tuple[int, str]], first: int = 0) -> Iterator[RawRow | BrokenRow]:
    """The rows of one file from (number, text) of each line; ids run from `first`."""
    number = first
    for line, text in lines:
        if not text.strip():
            continue
        try:
            value: object = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            value = _Broken(_reason(error), text)
        yield _row(number, f"{name}:{line}", value)
        number += 1


def read_tab_separated(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """One row per line, fields between tabs, nothing quoted; ids are `<file name without ending>_<number>`."""
    for name, path in files.items():
        stem = Path(name).stem
        for line, text in _lines(path):
            yield RawRow(f"{stem}_{line - 1}", f"{name}:{line}", text.split("\t"))


class _Broken:
    """Stands for an element that could not be parsed."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason, self.text = reason, text


def _row(number: int, where: str, value: object) -> RawRow | BrokenRow:
    if isinstance(value, _Broken):
        return BrokenRow(str(number), where, value.reason, value.text[:_SHOWN_CHARACTERS])
    return RawRow(str(number), where, value)


def _reason(error: json.JSONDecodeError | RecursionError) -> str:
    return f"broken JSON: {error.msg.lower()}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="\n") as stream:
            yield stream
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"broken gzip file: {error}", str(path), "fetch the whole file again") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _open(path) as stream:
        for line, text in enumerate(stream, 1):
            yield line, text.rstrip("\r\n")


class _Window:
    """The part of a file that is being parsed: `text[position:]` is what comes next, `line` where that stands."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.text, self.position, self.line, self.ended = "", 0, 1, False

    def read_more(self) -> None:
        """Drops what was consumed and reads at least as much again as is waiting."""
        waiting = self.text[self.position :]
        more = self._stream.read(max(_CHUNK_CHARACTERS, len(waiting)))
        self.text, self.position, self.ended = waiting + more, 0, not more

    def move_to(self, position: int) -> None:
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def peek(self) -> str:
        """The next character that is no white space, "" at the end of the file; moves there."""
        while True:
            end = _after_space(self.text, self.position)
            if end < len(self.text) or self.ended:
                self.move_to(end)
                return self.text[end : end + 1]
            self.read_more()


_DECODER = json.JSONDecoder()
# An error so near the window's end may only mean that the rest is not yet there; `\\ud83d\\ude00` is the longest token.
_LONGEST_TOKEN_CHARACTERS = 16


def _elements(window: _Window, name: str) -> Iterator[tuple[int, object]]:
    """(line, value or `_Broken`) for each element of the array in `window`."""
    if window.peek() != "[":
        start = window.text[window.position : window.position + 20]
        raise BadInput(
            f"not a JSON array, it starts with {start!r}", f"{name}:{window.line}", "check the source's address"
        )
    window.move_to(window.position + 1)
    if window.peek() == "]":
        return
    first_key: object = None
    while True:
        window.peek()
        line = window.line
        value = _element(window, name, first_key)
        if first_key is None and isinstance(value, dict):
            first_key = next(iter(value), None)
        yield line, value
        at_end = window.text[window.position] == "]"  # else a comma: `_element` stops nowhere else
        window.position += 1
        if at_end:
            break
    if window.peek():
        raise BadInput("there is more after the array's end", f"{name}:{window.line}", "keep one array per file")


def _element(window: _Window, name: str, first_key: object) -> object:
    """The next element; moves behind it, to the comma or bracket that follows."""
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.position)
        except json.JSONDecodeError as error:
            if not _cut_short(error, window):
                return _broken_element(window, name, _reason(error), first_key)
        except RecursionError as error:
            return _broken_element(window, name, _reason(error), first_key)
        else:
            after = _after_space(window.text, end)
            if window.text[after : after + 1] in (",", "]"):
                window.move_to(after)
                return value
            if window.ended and after == len(window.text):
                raise _cut_off(name, window.line)
            if window.ended or after < len(window.text) - _LONGEST_TOKEN_CHARACTERS:
                return _broken_element(window, name, "broken JSON: no comma after it", first_key)
        window.read_more()


def _broken_element(window: _Window, name: str, reason: str, first_key: object) -> _Broken:
    """Moves to where the next element can be read, keeping no more in memory than the window and a beginning.

    What can be read is the next element if a comma or the array's end follows and, so that objects inside the broken
    element are not taken for elements, if it has the key that the array's first element begins with.
    """
    if first_key is None and (key := _FIRST_KEY.match(window.text, window.position)):
        first_key = key[1]
    line, text, at = window.line, "", window.position + 1

    def skip_to(position: int) -> None:
        nonlocal text
        text += window.text[window.position : position][: _SHOWN_CHARACTERS - len(text)]
        window.move_to(position)

    while True:
        found = _NEXT_ROW.search(window.text, at)
        if found is None and window.ended:
            break
        if found is None:
            # All that still matters is what an element may follow, or may end the array.
            last = len(window.text.rstrip(_SPACES)) - 1
            skip_to(last if last >= at and window.text[last] in ",]" else len(window.text))
        elif (is_next := _is_element(window, found.end(), first_key)) is None:
            skip_to(found.start())
        else:
            if is_next:
                skip_to(found.start())
                return _Broken(reason, text)
            at = found.end()
            continue
        window.read_more()
        at = 0
    end = len(window.text.rstrip(_SPACES)) - 1
    if end < 0 or window.text[end] != "]":
        raise _cut_off(name, line)
    skip_to(end)
    return _Broken(reason, text)


def _is_element(window: _Window, start: int, first_key: object) -> bool | None:
    """Whether an element of the array starts there; None if more of the file must be read to tell."""
    try:
        value, end = _DECODER.raw_decode(window.text, start)
    except json.JSONDecodeError as error:
        return None if _cut_short(error, window) else False
    except RecursionError:
        return False
    after = _after_space(window.text, end)
    if after == len(window.text) and not window.ended:
        return None
    if window.text[after : after + 1] not in (",", "]"):
        return False
    return first_key is None or (isinstance(value, dict) and first_key in value)


def _cut_short(error: json.JSONDecodeError, window: _Window) -> bool:
    """Whether the text may be right as far as it has been read."""
    near_end = error.pos >= len(window.text) - _LONGEST_TOKEN_CHARACTERS
    return not window.ended and (near_end or error.msg.startswith("Unterminated string"))


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _cut_off(name: str, line: int) -> BadInput:
    return BadInput("the file ends in the middle of the array", f"{name}:{line}", "fetch the whole file again")
