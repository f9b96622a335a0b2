"""kill -9 before any chosen change that something makes on the disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}  # of Python's audit events, and opening to write
_WRITES = os.O_WRONLY | os.O_RDWR
# Children of a process without threads: a fork of this one, with those that torch starts in it, may never come back.
_PROCESSES = multiprocessing.get_context("forkserver")


def import_once(*modules: str) -> None:
    """What takes long to import is imported by the process that the children are forked from; before the first."""
    _PROCESSES.set_forkserver_preload(list(modules))


def killed_at(point: int, action: Callable[[], object]) -> bool:
    """Do it in a child that is killed before the `point`-th change on the disk; whether it came so far.

    The action must pickle: a function of a module, or `partial` of one.
    """
    child = _PROCESSES.Process(target=_do, args=(point, action))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def changes_of(action: Callable[[], object]) -> int:
    """Do it in a child; how many changes on the disk that took."""
    told, tell = _PROCESSES.Pipe(duplex=False)
    child = _PROCESSES.Process(target=_do, args=(sys.maxsize, action, tell))
    child.start()
    tell.close()
    count = int(told.recv())
    child.join()
    assert child.exitcode == 0
    return count


def _do(point: int, action: Callable[[], object], tell: Connection | None = None) -> None:
    count = 0

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITES):
            count += 1
            if count > point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.dont_write_bytecode = True  # of what is imported on the way: no change of the action's
    sys.addaudithook(kill)
    action()
    if tell is not None:
        tell.send(count)
