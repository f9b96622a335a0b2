"""When a training is asked to stop: it finishes the step it is at, saves, and ends.

The run asks through a file, which reaches ranks on every machine; whoever ends a job (a batch system before it takes
the machine away, a person) through a signal to one rank or all.
"""

from __future__ import annotations

import signal
from pathlib import Path

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequests:
    """Listens from now on, instead of ending at once; to be made by the main thread.

    Args:
        file: whose existence says it, looked for by the first rank.
        rank: which one this is.
    """

    def __init__(self, file: Path, rank: int) -> None:
        self._file = file if rank == 0 else None
        self._asked = False
        for number in _SIGNALS:
            signal.signal(number, self._remember)

    def asked(self) -> bool:
        """Whether this rank was asked. Another may have been, or not yet: all of them must agree."""
        return self._asked or (self._file is not None and self._file.exists())

    def close(self) -> None:
        """Listen no more: what comes now cannot be saved, so that it ends at once again."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _remember(self, *_: object) -> None:
        self._asked = True
