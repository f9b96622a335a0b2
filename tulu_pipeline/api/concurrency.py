"""How many requests are under way at a time: a server that says it is too many is left in peace, then probed again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

START = 8
_LOOK_EVERY_SECONDS = 0.5


class Flow:
    """Additive increase, multiplicative decrease; of one event loop.

    After as many answers in a row as the limit is, one more request may be under way; at a rate limit, half as many.
    Requests sent before the last halving say nothing about the new limit.

    Attributes:
        limit: requests that may be under way now, from 1 to `cap`.
        in_flight: that are. peak: the most there were.
    """

    def __init__(self, cap: int) -> None:
        self.cap = max(1, cap)
        self.limit = min(START, self.cap)
        self.in_flight = self.peak = 0
        self._clean = 0
        self._halvings = 0
        self._quiet_until = 0.0
        self._moved = asyncio.Condition()

    async def enter(self, not_before: float, given_up: Callable[[], bool]) -> int:
        """Wait for a place, for the end of a silence and for a moment of one's own.

        Args:
            not_before: that moment, by `time.monotonic`.
            given_up: whether to wait for a place alone; looked at twice a second.

        Returns:
            What belongs to `leave`.
        """
        while True:
            async with self._moved:
                await self._moved.wait_for(lambda: self.in_flight < self.limit)
                wait_seconds = max(self._quiet_until, not_before) - time.monotonic()
                if wait_seconds <= 0 or given_up():
                    self.in_flight += 1
                    self.peak = max(self.peak, self.in_flight)
                    return self._halvings
            await asyncio.sleep(min(wait_seconds, _LOOK_EVERY_SECONDS))

    async def leave(self, entered: int, *, answered: bool, limited: bool) -> None:
        """Give a place back.

        Args:
            entered: what `enter` gave.
            answered: whether there was an answer.
            limited: whether the server said that it was too many.
        """
        async with self._moved:
            self.in_flight -= 1
            if limited and entered == self._halvings:
                self.limit = max(1, self.limit // 2)
                self._halvings += 1
                self._clean = 0
            elif answered and entered == self._halvings:
                self._clean += 1
                if self._clean >= self.limit:
                    self.limit = min(self.cap, self.limit + 1)
                    self._clean = 0
            self._moved.notify_all()

    def hush(self, seconds: float) -> None:
        """Send nothing for so long; the longest wish holds."""
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)
