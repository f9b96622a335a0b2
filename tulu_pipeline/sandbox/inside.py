"""The part that runs in the program's own process: execute it, then say on a private descriptor how it ended.

A verdict is a line `{"nonce", "outcome", "error", "flags"}` written after the program, its check included, came to
its end. The nonce is this run's own, so that what a program writes by chance is no verdict; one that goes looking for
it can forge one, as in any executor that shares a process with what it executes, and is flagged for looking.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

_ERROR_CHARACTERS = 300
_EXAMINED_VALUES = 2_000
_FILE = "<string>"  # what `exec` calls a program


def run(source: str, entry_point: str, nonce: str, verdicts: int) -> None:
    """Execute a program and write the verdict to the descriptor `verdicts`.

    A program that passed is looked at once more: its `check` is called with a function that notes what `entry_point`
    returns, and a second line says so where that compares itself by the program's own rule.
    """
    write, dumps = os.write, json.dumps
    write(verdicts, b"\n")  # the clock starts
    names: dict[str, Any] = {}
    outcome, error, flags = "passed", "", []
    try:
        exec(source, names)
    except BaseException as ended:  # noqa: BLE001 - whatever a program raises is its failure
        outcome, error = "failed", _told(ended)
        if isinstance(ended, SystemExit):
            flags = ["early_exit"]
    write(verdicts, dumps({"nonce": nonce, "outcome": outcome, "error": error, "flags": flags}).encode() + b"\n")
    with contextlib.suppress(BaseException):  # whatever a program made of it
        sys.stdout.flush()
    if outcome == "passed" and callable(names.get("check")) and callable(names.get(entry_point)):
        seen = _results(names["check"], names[entry_point])
        write(verdicts, dumps({"nonce": nonce, "flags": ["own_equality"] if seen else []}).encode() + b"\n")


def _told(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    except BaseException:  # noqa: BLE001 - an error that cannot be told
        text = type(error).__name__
    return text[:_ERROR_CHARACTERS]


def _results(check: Callable[[Any], object], function: Callable[..., object]) -> bool:
    """Whether a check is given a value that compares itself by the program's own rule."""
    found: list[bool] = []

    def noting(*arguments: object, **named: object) -> object:
        result = function(*arguments, **named)
        if not found and _compares_itself(result):
            found.append(True)
        return result

    try:
        check(noting)
    except BaseException:  # noqa: BLE001 - it passed before
        return bool(found)
    return bool(found)


def _compares_itself(value: object) -> bool:
    waiting: list[Any] = [value]
    seen = 0
    while waiting and seen < _EXAMINED_VALUES:
        each = waiting.pop()
        seen += 1
        kind = type(each)
        if kind in (list, tuple, set, frozenset):
            waiting.extend(each)
        elif kind is dict:
            waiting.extend(each.values())
        elif kind not in (int, float, str, bool, bytes, complex, type(None)) and _has_own_rule(kind):
            return True
    return False


def _has_own_rule(kind: type) -> bool:
    """Whether the first class that says how to compare says it in code of the program."""
    for each in type.mro(kind):
        rules = [each.__dict__[name] for name in ("__eq__", "__ne__") if name in each.__dict__]
        if rules:
            return any(isinstance(rule, FunctionType) and rule.__code__.co_filename == _FILE for rule in rules)
    return False


def main() -> None:
    """Of the tier `bubblewrap`: the program and its limits come through the descriptor that the command names."""
    from tulu_pipeline.sandbox.confine import confine
    from tulu_pipeline.sandbox.world import without_ours

    task, verdicts = int(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(task, "rb") as file:
        wanted = json.load(file)
    sys.path.extend(wanted["path"])
    without_ours()
    confine(wanted["timeout_seconds"])
    run(wanted["source"], wanted["entry_point"], wanted["nonce"], verdicts)
    os._exit(0)


if __name__ == "__main__":
    main()
