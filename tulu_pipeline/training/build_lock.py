"""One process compiles an extension at a time, and one that is killed leaves none behind it waiting."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OUR_LOCK = "builder"
_TORCHS_LOCK = "lock"  # `torch.utils.cpp_extension`: who finds it in the folder of an extension waits until it is gone


@contextmanager
def building_alone(folder: Path) -> Iterator[None]:
    """Let no other process that asks for it be in the folder of an extension meanwhile; wait for one that is.

    The kernel ends this lock with its holder. Torch's is a file that only its holder removes, so that after a kill all
    would wait for it for ever; whoever is alone here knows that nobody holds it. On a file system without locks torch's
    is all there is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _OUR_LOCK).open("ab") as file:  # NFS lets nobody alone hold what is open for reading
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            (folder / _TORCHS_LOCK).unlink(missing_ok=True)
        yield
