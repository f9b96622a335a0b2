"""kill -9 before any chosen change that something makes on the disk."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

_CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}  # of Python's audit events


def killed_at(point: int, action: Callable[[], None]) -> bool:
    """Do it in a child that is killed before the `point`-th change on the disk; whether it came so far."""
    child = os.fork()
    if not child:
        count = 0

        def kill(event: str, _: object) -> None:
            nonlocal count
            if event in _CHANGES:
                count += 1
                if count > point:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
