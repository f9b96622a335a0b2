"""How a rank that said nothing ended, from the exit code of what started it."""

from __future__ import annotations

import signal

_OFTEN = {
    signal.SIGKILL: "often the machine's memory was full",
    signal.SIGBUS: "often shared memory (/dev/shm) was full",
}


def how_it_ended(rank: int, code: int | None) -> str:
    """What to say of a rank that is gone; `code` is its launcher's exit code, None where that is not known."""
    number = _signal_of(code)
    if number is not None:
        often = f", {_OFTEN[number]}" if number in _OFTEN else ""
        return f"rank {rank} was killed by signal {int(number)} ({number.name}){often}"
    return f"rank {rank} ended without a word" + (f", with code {code}" if code else "")


def _signal_of(code: int | None) -> signal.Signals | None:
    """A launcher that is Python ends with the negative number of its rank's signal, a shell with 128 and the number."""
    if code is None or code <= 128:
        return None
    try:
        return signal.Signals(256 - code if code > 192 else code - 128)
    except ValueError:
        return None
