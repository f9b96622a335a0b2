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
_SPACE = re.compile(r"[ \t\r\n]*")
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
        return BrokenRow(str(number), where, value.reason, value.text[:200])
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
            end = self._after_space()
            if end < len(self.text) or self.ended:
                self.move_to(end)
                return self.text[end : end + 1]
            self.read_more()

    def _after_space(self) -> int:
        match = _SPACE.match(self.text, self.position)
        assert match is not None
        return match.end()


_DECODER = json.JSONDecoder()


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
    while True:
        window.peek()
        line = window.line
        yield line, _element(window, name)
        at_end = window.peek() == "]"  # else a comma: `_element` stops nowhere else
        window.move_to(window.position + 1)
        if at_end:
            break
    if window.peek():
        raise BadInput("there is more after the array's end", f"{name}:{window.line}", "keep one array per file")


def _element(window: _Window, name: str) -> object:
    """The next element; moves behind it, to the comma or bracket that follows."""
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.position)
        except (json.JSONDecodeError, RecursionError) as error:
            if window.ended:
                return _broken_element(window, name, _reason(error))
        else:
            after = _SPACE.match(window.text, end)
            assert after is not None
            if after.end() < len(window.text):
                if window.text[after.end()] in ",]":
                    window.move_to(after.end())
                    return value
                if window.ended:
                    return _broken_element(window, name, "broken JSON: no comma after it")
            elif window.ended:
                raise _cut_off(window, name)
        window.read_more()


def _broken_element(window: _Window, name: str, reason: str) -> _Broken:
    """Skips to where the next element can be read; the whole rest of the file is in the window."""
    start = window.position
    for candidate in _NEXT_ROW.finditer(window.text, start + 1):
        try:
            _, end = _DECODER.raw_decode(window.text, candidate.end())
        except (json.JSONDecodeError, RecursionError):
            continue
        after = _SPACE.match(window.text, end)
        assert after is not None
        if window.text[after.end() : after.end() + 1] in (",", "]"):
            window.move_to(candidate.start())
            return _Broken(reason, window.text[start : candidate.start()])
    if not window.text.rstrip().endswith("]"):
        raise _cut_off(window, name)
    window.move_to(window.text.rindex("]"))
    return _Broken(reason, window.text[start : window.position])


def _cut_off(window: _Window, name: str) -> BadInput:
    return BadInput("the file ends in the middle of the array", f"{name}:{window.line}", "fetch the whole file again")
