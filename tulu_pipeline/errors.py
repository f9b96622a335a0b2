"""Every error of the project: what is wrong, where, and the command or edit that mends it.

TuluError
├── NotFound            an unknown name (close matches come first)
├── BadInput            a file, a row or an option that cannot be used
│   └── HashMismatch    bytes that are not the ones that were pinned
├── StageFailed         a stage that stopped; the root cause is chained
│   └── Unreachable     the outside world did not answer; the same try may succeed later
├── StoreError          the artifact store cannot be read or written
│   └── Tampered        a published artifact whose bytes have changed
└── MissingOnMachine    something this machine lacks (a library, a compiler, a key)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class TuluError(Exception):
    """The one root.

    Args:
        what: what is wrong, with the actual value; lower case, no full stop.
        where: file:line, dataset and row id, or artifact.
        fix: the command or edit that mends it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix

    def __reduce__(self) -> tuple[type[TuluError], tuple[str, str, str]]:
        return type(self), (self.what, self.where, self.fix)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class NotFound(TuluError):
    exit_code = 2


class BadInput(TuluError):
    exit_code = 2


class HashMismatch(BadInput):
    exit_code = 1


class StageFailed(TuluError):
    pass


class Unreachable(StageFailed):
    pass


class StoreError(TuluError):
    pass


class Tampered(StoreError):
    pass


class MissingOnMachine(TuluError):
    exit_code = 4


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> NotFound:
    """A `NotFound` for `name` that lists close matches first, then everything known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(f'`{match}`' for match in close)}? " if close else ""
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return NotFound(f"no {kind} named `{name}`", where, f"{fix}known: {shown or 'none'}")
