"""What an error of a server means: try again, or not; when; and whether it may have cost something."""

from __future__ import annotations

import email.utils
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tulu_pipeline.api.requests import ErrorKind

_RETRIED: frozenset[ErrorKind] = frozenset({"rate_limit", "server", "timeout", "connection", "malformed"})
_KINDS: Mapping[int, ErrorKind] = {
    400: "bad_request",
    401: "auth",
    402: "quota",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server",
    413: "bad_request",
    422: "bad_request",
    429: "rate_limit",
}
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_TOO_LONG = "context_length_exceeded"
_SHOWN = 200
_MOST_DOUBLINGS = 60  # of a wait; more is no number


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why an attempt did not bring an answer.

    Attributes:
        reason: in the server's words, shortened.
        retry_after_seconds: how long the server asks to be left alone; None where it does not say.
        may_have_cost: whether the server may have generated, and charged for, what did not arrive.
    """

    kind: ErrorKind
    reason: str
    retry_after_seconds: float | None = None
    may_have_cost: bool = False

    @property
    def retried(self) -> bool:
        """Whether another attempt may succeed."""
        return self.kind in _RETRIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a request is tried.

    Attributes:
        attempts: that may fail; one that met a rate limit did not, however often that happens.
        attempt_seconds: for each, until the answer is whole.
        deadline_seconds: for all of them and the waits between; none begins later. Waiting for a turn, or because the
            server asks for it, does not count.
        base_seconds, longest_seconds: the wait before attempt n + 1 is drawn between 0 and base · 2ⁿ⁻¹, at most the
            longest ("full jitter"); where the server asks for more, it is more.
    """

    attempts: int = 10
    attempt_seconds: float = 300.0
    deadline_seconds: float = 1800.0
    base_seconds: float = 1.0
    longest_seconds: float = 60.0

    def wait_seconds(self, attempt: int, dice: random.Random) -> float:
        """How long to wait after the `attempt`-th attempt, counted from 1."""
        return dice.uniform(0, min(self.longest_seconds, self.base_seconds * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)))


def fault_of_status(status: int, headers: Mapping[str, str], body: str) -> Fault:
    """What an answer with an error status means.

    An error that the API itself tells in its own form was not charged for; a proxy's words say nothing about what
    happened behind it.
    """
    error = _error(body)
    code, message = str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")
    kind: ErrorKind = _KINDS.get(status, "server" if status >= 500 else "unexpected")
    if _NO_MONEY & {code, str(error.get("type") or "")}:
        kind = "quota"
    elif status in (400, 413) and (code == _TOO_LONG or "maximum context length" in message):
        kind = "context_length"
    said = f": {message[:_SHOWN]}" if message else ""
    return Fault(
        kind=kind,
        reason=f"status {status}{said}",
        retry_after_seconds=retry_after_seconds(headers, datetime.now(UTC)),
        may_have_cost=status >= 500 and not error,
    )


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """What `retry-after-ms` or `retry-after` says, in seconds or as a date; None where neither can be read.

    Args:
        headers: by names in lower case.
        now: what a date is counted from.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _error(body: str) -> Mapping[str, Any]:
    """The error object of a body in the API's form; empty where it is in another."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {"message": str(error)}
