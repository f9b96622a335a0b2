"""The ranks of one machine watch each other: when one of them is gone, the others do not wait for it.

A rank that is killed says nothing, and what it took part in may wait for it until a timeout of hours. The kernel tells
the others at once.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from pathlib import Path

import torch.distributed as dist

from tulu_pipeline.artifacts.child_side import emit

_SETTLE_SECONDS = 1.0  # an error that this rank has by itself comes first
_LINGER_SECONDS = 4.0  # so that whoever started the ranks sees the one that is gone first, and how it ended
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Siblings:
    """Watches the other ranks on this machine from now on; to be made when all ranks have joined.

    Args:
        rank: this one.
        ranks: how many there are.
    """

    def __init__(self, rank: int, ranks: int) -> None:
        self._rank = rank
        self._lock = threading.Lock()
        self._over = self._told = False
        self._rank_of: dict[int, int] = {}  # by the descriptor of its process
        for other, pid in _pids_here(rank, ranks).items():
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:  # gone already; whoever started it sees that
                continue
            self._rank_of[descriptor] = other
        if self._rank_of:
            threading.Thread(target=self._watch, daemon=True, name="siblings").start()

    def is_over(self) -> None:
        """From now on the others may end; all ranks call this together, and none comes back before all know it.

        However long one takes to get here, no other has ended before.
        """
        with self._lock:
            self._over = True
        dist.barrier()

    def one_is_gone(self, within_seconds: float) -> bool:
        """Whether another rank has ended, or does so soon: this one's error follows from that, and the run is told."""
        gone = self._first_gone(within_seconds)
        if gone is not None:
            self._tell(gone)
        return gone is not None

    def _watch(self) -> None:
        gone = self._first_gone(None)
        time.sleep(_SETTLE_SECONDS)
        if gone is not None and not self._over:
            self._tell(gone)
            os._exit(1)

    def _first_gone(self, within_seconds: float | None) -> int | None:
        poller = select.poll()  # of its own: one of them serves one thread
        for descriptor in self._rank_of:
            poller.register(descriptor, select.POLLIN)
        ended = poller.poll(None if within_seconds is None else within_seconds * 1000)
        return self._rank_of[ended[0][0]] if ended else None

    def _tell(self, gone: int) -> None:
        """Say who is gone, and wait a little before this rank ends, too."""
        with self._lock:
            if not self._told and not self._over:
                emit({"event": "gone", "rank": gone})
            self._told = True
        time.sleep(_LINGER_SECONDS)


def _pids_here(rank: int, ranks: int) -> dict[int, int]:
    """Process ids of the other ranks on this machine, told in the store that the ranks met at."""
    store = dist.distributed_c10d._get_default_store()
    machine = [_BOOT_ID.read_text().strip(), str(Path("/proc/self/ns/pid").readlink())]
    store.set(f"tulu-rank-{rank}", json.dumps([*machine, os.getpid()]))
    told = {other: json.loads(store.get(f"tulu-rank-{other}")) for other in range(ranks) if other != rank}
    return {other: pid for other, (*where, pid) in told.items() if where == machine}
