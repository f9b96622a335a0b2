"""Money that a run may spend: what a request could cost at most is set aside before it is sent."""

from __future__ import annotations

import threading
from decimal import Decimal, InvalidOperation

from tulu_pipeline.errors import BadInput

_ZERO = Decimal(0)


class Budget:
    """At most `max_usd`, however many threads spend it; None is without bound.

    Whatever is set aside and what is spent together never exceed the bound, as long as nothing costs more than was set
    aside for it.
    """

    def __init__(self, max_usd: Decimal | None = None) -> None:
        self.max_usd = max_usd
        self._lock = threading.Lock()
        self._spent = self._reserved = _ZERO

    @property
    def spent(self) -> Decimal:
        """What was paid, and what may have been paid for answers that got lost."""
        return self._spent

    @property
    def reserved(self) -> Decimal:
        """What is set aside for requests that are under way."""
        return self._reserved

    @property
    def left(self) -> Decimal | None:
        """What is neither spent nor set aside; None where there is no bound."""
        with self._lock:
            return None if self.max_usd is None else self.max_usd - self._spent - self._reserved

    def reserve(self, usd: Decimal) -> bool:
        """Set `usd` aside; False where that is not left."""
        with self._lock:
            if self.max_usd is not None and self._spent + self._reserved + usd > self.max_usd:
                return False
            self._reserved += usd
            return True

    def settle(self, reserved: Decimal, spent: Decimal) -> None:
        """Give back what was set aside, less what was spent of it."""
        with self._lock:
            self._reserved -= reserved
            self._spent += spent


def dollars(text: str | None) -> Decimal | None:
    """An amount as people write it, `5` or `$2.50`; None for none.

    Raises:
        BadInput: no amount, or less than nothing.
    """
    if text is None:
        return None
    try:
        usd = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or usd < 0:
        raise BadInput(f"no amount: `{text}`", "--max-usd", "write US dollars, such as `2.50`")
    return usd
