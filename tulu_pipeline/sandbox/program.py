"""Programs and verdicts: what goes into the sandbox and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tier = Literal["namespaces", "bubblewrap", "none"]
Outcome = Literal["passed", "failed", "timed_out", "killed", "exited"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to execute.

    Attributes:
        program_id: unique among the programs of one call.
        source: all of it; it has passed when it comes to its end without an exception.
        entry_point: the function that it defines and its `check` is called with; "" where it has none.
        answer: the part that a model wrote, which is looked through for tricks; "" for all of it.
    """

    program_id: str
    source: str
    entry_point: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a program ended.

    Attributes:
        program_id: the program's.
        outcome: `failed` by an exception, `timed_out`, `killed` by a signal, `exited` before its end.
        error: the exception, in one line of at most 300 characters; the signal; the exit code.
        flags: what looks like an attempt to pass without solving, see `suspicion`; no part of the outcome.
        seconds: by the clock. cpu_seconds: of processors.
        output: what it wrote to stdout and stderr, the first 64 KiB.
        attempts: 2 where it timed out while others ran and was tried again alone.
    """

    program_id: str
    outcome: Outcome
    error: str = ""
    flags: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    output: str = ""
    attempts: int = 1

    @property
    def passed(self) -> bool:
        """Whether it came to its end."""
        return self.outcome == "passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A verdict and the tier it was reached in."""

    tier: Tier
    verdict: Verdict
