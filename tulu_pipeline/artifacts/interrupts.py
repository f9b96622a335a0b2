"""An interrupt (Ctrl-C) that cannot get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be, which may be deep inside a library that takes
it for an error of its own; the run would go on as if nobody had asked. So it is remembered, too.
"""

from __future__ import annotations

import signal
import threading

_asked = threading.Event()


def listen() -> None:
    """From now on an interrupt of this process is remembered; to be called by the main thread."""

    def remember(*_: object) -> None:
        _asked.set()
        raise KeyboardInterrupt

    _asked.clear()
    signal.signal(signal.SIGINT, remember)


def raise_if_asked() -> None:
    """Raises KeyboardInterrupt where there was one since `listen`, whatever became of it."""
    if _asked.is_set():
        raise KeyboardInterrupt
