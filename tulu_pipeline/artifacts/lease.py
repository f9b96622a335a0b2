"""Leases: who is making an artifact right now. They save work and money; correctness never rests on them.

A lease is `leases/<key>/<n>.json`; the highest `n` without `<n>.done` holds. Taking over a dead holder is creating
`<n+1>`, which only one waiter can. On the same host a dead holder is seen at once by its process id and start time;
on another host by a heartbeat that does not move for a while on the waiter's own clock. Before a takeover the dead
holder's children are ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.storage import Storage

HEARTBEAT_SECONDS = 5.0
_POLL_SECONDS = 0.25


@dataclass(slots=True)
class Lease:
    """A held lease; release it whether the work succeeded or not."""

    storage: Storage
    key: str
    generation: int
    _stop: threading.Event
    _children: list[dict[str, Any]]

    def add_child(self, pid: int) -> None:
        """Record a supervised child, so that whoever takes over ends it first."""
        started = process_start(pid)
        if started is not None:
            self._children.append({"pid": pid, "started": started})
            self._beat()

    def release(self) -> None:
        """Let go."""
        self._stop.set()
        self.storage.put_if_absent(f"leases/{self.key}/{self.generation}.done", b"")

    def _beat(self) -> None:
        beat = {"at": time.monotonic(), "children": self._children}
        with contextlib.suppress(OSError):
            self.storage.write(f"leases/{self.key}/{self.generation}.beat", json.dumps(beat).encode())


def acquire(
    storage: Storage,
    key: str,
    *,
    name: str,
    stale_seconds: float,
    on_wait: Callable[[str], None],
    done: Callable[[], bool],
) -> Lease | None:
    """Hold the lease of `key`, waiting for a living holder.

    Args:
        storage: of the store.
        key: the artifact's.
        name: for people.
        stale_seconds: how long a holder on another host may be silent.
        on_wait: told once who holds it and since when.
        done: asked while waiting; when it says yes, nobody needs the lease any more.

    Returns:
        The lease, or None because `done`.
    """
    told: int | None = None
    last_beat: tuple[int, bytes | None] = (0, None)
    last_moved = time.monotonic()
    while True:
        generation, holder = _holder(storage, key)
        if holder is None:
            lease = _create(storage, key, generation + 1, name)
            if lease is not None:
                return lease
            continue
        if _is_dead_here(holder):
            _end_children(storage, key, generation)
        else:
            beat = (generation, storage.read(f"leases/{key}/{generation}.beat"))
            if beat != last_beat:
                last_beat, last_moved = beat, time.monotonic()
            silent = time.monotonic() - last_moved
            if _same_host(holder) or silent < stale_seconds:
                if told != generation:
                    told = generation
                    who = f"process {holder['pid']} on {holder['host']}"
                    on_wait(f"waiting for {name}: {who} holds it since {holder['since']}")
                if done():
                    return None
                time.sleep(_POLL_SECONDS)
                continue
        lease = _create(storage, key, generation + 1, name)
        if lease is not None:
            return lease


def holder_of(storage: Storage, key: str) -> dict[str, Any] | None:
    """Who holds the lease of `key` (pid, host, since, name), or None."""
    return _holder(storage, key)[1]


def process_start(pid: int) -> str | None:
    """Start time of a living process in clock ticks since boot, with the boot's id; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{boot}:{fields[19]}"


def _holder(storage: Storage, key: str) -> tuple[int, dict[str, Any] | None]:
    names = set(storage.names(f"leases/{key}"))
    generations = [int(name.removesuffix(".json")) for name in names if name.endswith(".json")]
    top = max(generations, default=0)
    if not top or f"{top}.done" in names:
        return top, None
    data = storage.read(f"leases/{key}/{top}.json")
    return top, json.loads(data) if data else None


def _create(storage: Storage, key: str, generation: int, name: str) -> Lease | None:
    holder = {
        "name": name,
        "pid": os.getpid(),
        "started": process_start(os.getpid()),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if not storage.put_if_absent(f"leases/{key}/{generation}.json", json.dumps(holder).encode()):
        return None
    lease = Lease(storage, key, generation, threading.Event(), [])
    threading.Thread(target=_heartbeat, args=(lease,), daemon=True, name=f"lease {name}").start()
    return lease


def _heartbeat(lease: Lease) -> None:
    while not lease._stop.wait(HEARTBEAT_SECONDS):
        lease._beat()


def _same_host(holder: dict[str, Any]) -> bool:
    return bool(
        holder["host"] == socket.gethostname() and _boot(holder) == _boot({"started": process_start(os.getpid())})
    )


def _boot(holder: dict[str, Any]) -> str:
    return str(holder["started"]).partition(":")[0]


def _is_dead_here(holder: dict[str, Any]) -> bool:
    return _same_host(holder) and process_start(int(holder["pid"])) != holder["started"]


def _end_children(storage: Storage, key: str, generation: int) -> None:
    beat = storage.read(f"leases/{key}/{generation}.beat")
    children = json.loads(beat)["children"] if beat else []
    for child in children:
        deadline = time.monotonic() + 10.0
        number = signal.SIGTERM
        while process_start(child["pid"]) == child["started"]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child["pid"], number)
            if time.monotonic() > deadline:
                number = signal.SIGKILL
            time.sleep(0.05)
