"""Whose turn it is on this machine: many pools of programs side by side, or one program alone."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PAUSE_SECONDS = 0.1


@contextmanager
def side_by_side() -> Iterator[None]:
    """While others run programs too, and nobody has one alone."""
    with _held(fcntl.LOCK_SH):
        yield


@contextmanager
def alone() -> Iterator[None]:
    """While no other pool on this machine runs a program; waits for those under way."""
    with _held(fcntl.LOCK_EX):
        yield


@contextmanager
def _held(how: int) -> Iterator[None]:
    """A lock of the folder for temporary files, which the kernel gives up with its holder."""
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while not _is_taken(folder, how):
            time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        os.close(folder)


def _is_taken(folder: int, how: int) -> bool:
    try:
        fcntl.flock(folder, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks: everyone has their turn at once
        return True
    return True
