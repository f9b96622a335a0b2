"""What a child process calls: events to the run that started it, and an end when that run ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
from typing import Any, NoReturn

EVENT_PREFIX = "@tulu "
SUPERVISOR_VARIABLE = "TULU_SUPERVISOR_PID"


def emit(event: dict[str, Any]) -> None:
    """Send one event to the run: a line of its own on stdout.

    Lines of several processes never mix up to 4 KB, which a pipe takes in one piece.
    """
    data = f"\n{EVENT_PREFIX}{json.dumps(event, ensure_ascii=True)}\n".encode()
    while data:
        data = data[os.write(1, data) :]


def end_with_parent() -> None:
    """End this process as soon as its supervisor is gone. Nothing happens outside a supervisor."""
    pid = os.environ.get(SUPERVISOR_VARIABLE)
    if pid:
        threading.Thread(target=_watch, args=(int(pid),), daemon=True, name="end-with-parent").start()


def end_at_once() -> NoReturn:
    """End well, without what an interpreter does at its end: taking torch down costs seconds, and may abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _watch(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        poller = select.poll()
        poller.register(os.pidfd_open(pid), select.POLLIN)
        poller.poll()
    os._exit(1)
