"""An interrupt (Ctrl-C), or the wish that the run should end (SIGTERM), that cannot get lost.

Python raises wherever the main thread happens to be, which may be deep inside a library that takes it for an error of
its own; the run would go on as if nobody had asked. So it is remembered, too.
"""

from __future__ import annotations

import signal
import threading

_asked = threading.Event()
_politely = threading.Event()


class Terminated(KeyboardInterrupt):
    """The run was asked to end by SIGTERM: what can be saved in a while is."""


def listen() -> None:
    """From now on either wish of this process is remembered; to be called by the main thread."""

    def remember(number: int, _: object) -> None:
        if number == signal.SIGTERM and not _asked.is_set():
            _politely.set()
        else:
            _politely.clear()  # Ctrl-C, or the second time
        _asked.set()
        raise_if_asked()

    forget()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)


def forget() -> None:
    """The wish was followed in another way than by ending the process."""
    _asked.clear()
    _politely.clear()


def raise_if_asked() -> None:
    """Raises where there was such a wish since `listen`, whatever became of it.

    Raises:
        Terminated: by SIGTERM, once.
        KeyboardInterrupt: by Ctrl-C, or more than once.
    """
    if _asked.is_set():
        raise Terminated if _politely.is_set() else KeyboardInterrupt
