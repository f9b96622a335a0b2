"""kill -9 before any chosen change that something makes on the disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}  # of Python's audit events, and opening to write
_WRITES = os.O_WRONLY | os.O_RDWR
# Children of a process without threads: a fork of this one, with those that torch starts in it, may never come back.
_PROCESSES = multiprocessing.get_context("forkserver")


def killed_at(point: int, action: Callable[[], object]) -> bool:
    """Do it in a child that is killed before the `point`-th change on the disk; whether it came so far.

    The action must pickle: a function of a module, or `partial` of one.
    """
    child = _PROCESSES.Process(target=_do, args=(point, action))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def _do(point: int, action: Callable[[], object]) -> None:
    count = 0

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _CHANGES or (event == "open" and arguments[2] & _WRITES):
            count += 1
            if count > point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    action()
