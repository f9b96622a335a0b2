"""What the command prints: data on stdout, log lines and errors on stderr. `rich` is loaded at the first print."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from tulu_pipeline.errors import TuluError
from tulu_pipeline.logs import PACKAGES, configure

if TYPE_CHECKING:
    from flows.session import Session
    from tulu_pipeline.artifacts.run import RunResult

_PIPE_COLUMNS = 160
_BLOCKED_SHOWN = 5
_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}


def open_console(*, stderr: bool = False) -> Any:
    """A `rich` console; wide where nobody looks at it, and its lines end where their text ends."""
    from rich.console import Console

    console = Console(stderr=stderr, soft_wrap=stderr)
    if not console.is_terminal:
        file: Any = _Trimmed(sys.stderr if stderr else sys.stdout)
        console = Console(file=file, soft_wrap=stderr, width=_PIPE_COLUMNS)
    return console


class _Trimmed(io.TextIOBase):
    """Writes without the blanks that tables are filled up with on the right."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        return self._file.encoding

    def write(self, text: str) -> int:
        self._file.write(re.sub(r" +$", "", text, flags=re.MULTILINE))
        return len(text)

    def flush(self) -> None:
        self._file.flush()


class LogLines(logging.Handler):
    """Log lines on stderr, above the progress bars where `console` has some."""

    def __init__(self, console: Any = None) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; warnings and errors in color."""
        if self.console is None:
            self.console = open_console(stderr=True)
        style = _STYLES.get(record.levelno, "dim")
        self.console.print(self.format(record), style=style, markup=False, highlight=False)


def show_logs(*, debug: bool) -> None:
    """From now on log lines go to stderr."""
    configure(logging.DEBUG if debug else logging.INFO, LogLines())


@contextmanager
def above(console: Any) -> Iterator[None]:
    """Log lines go to `console`, which has progress bars, while the body runs."""
    handlers = [handler for package in PACKAGES for handler in logging.getLogger(package).handlers]
    lines = [handler for handler in handlers if isinstance(handler, LogLines)]
    before = [handler.console for handler in lines]
    for handler in lines:
        handler.console = console
    try:
        yield
    finally:
        for handler, was in zip(lines, before, strict=True):
            handler.console = was


def print_json(value: object) -> None:
    """JSON for scripts, on stdout."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_rows(rows: list[tuple[str, ...]]) -> None:
    """Aligned columns on stdout."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*map(Text, row))
    open_console().print(table)


def print_licenses(licenses: tuple[str, ...], console: Any) -> None:
    """The licenses of data that is about to be written, with what they ask for."""
    from tulu_pipeline.mixing.licenses import meaning

    console.print("licenses of the whole:", markup=False, highlight=False)
    for license_ in licenses:
        console.print(f"  {license_}: {meaning(license_)}", markup=False, highlight=False)


def print_error(error: TuluError) -> None:
    """What, where and fix, on stderr."""
    console = open_console(stderr=True)
    console.print(f"error: {error.what}", style="red", markup=False, highlight=False)
    if error.where:
        console.print(f"where: {error.where}", markup=False, highlight=False)
    if error.fix:
        console.print(f"  fix: {error.fix}", style="green", markup=False, highlight=False)


def print_result(session: Session, result: RunResult) -> None:
    """The tables, what was done, and each root cause of what failed."""
    from flows.plan_view import print_left_out, print_tables

    print_tables(session, open_console(), {failure.name for failure in result.failed} | set(result.blocked))
    print_left_out(session, open_console())
    made = f"{len(result.executed)} made, {result.hit} there before"
    if result.found:
        made += f", {len(result.found)} made by another process"
    print(f"{session.experiment.name}: {made}, {len(result.failed)} failed, {result.seconds:.1f} s")
    for failure in result.failed:
        error = failure.error
        print_error(TuluError(f"{failure.name}: {error.what}", error.where, error.fix))
    if result.blocked:
        more = " …" if len(result.blocked) > _BLOCKED_SHOWN else ""
        print(f"not tried because of that: {', '.join(result.blocked[:_BLOCKED_SHOWN])}{more}", file=sys.stderr)
