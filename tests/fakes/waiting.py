"""Waiting for something that another process or thread brings about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(holds: Callable[[], T], seconds: float = 60.0, said: Callable[[], object] = str) -> T:
    """What `holds` gives as soon as that is true; after so many seconds the test fails with what was `said`."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {said()}"
        time.sleep(0.02)
    return found
