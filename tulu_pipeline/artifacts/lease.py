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
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.storage import Storage
from tulu_pipeline.errors import StoreError

_HEARTBEAT_SECONDS = 5.0
_POLL_SECONDS = 0.25
_HOLDER_FIELDS = frozenset({"name", "token", "pid", "started", "machine", "host", "since"})
_CHILD_GRACE_SECONDS = 10.0
_CHILD_LIMIT_SECONDS = 5.0


class Lease:
    """A held lease; release it whether the work succeeded or not."""

    def __init__(self, storage: Storage, key: str, generation: int) -> None:
        self.generation = generation
        self._storage, self._path = storage, f"leases/{key}/{generation}"
        self._token = uuid.uuid4().hex
        self._released = threading.Event()
        self._children: list[dict[str, Any]] = []

    def add_child(self, pid: int) -> None:
        """Record a supervised child, so that whoever takes over ends it first."""
        started = process_start(pid)
        if started is not None and not self._released.is_set():
            self._children.append({"pid": pid, "started": started})
            self._beat()

    def release(self) -> None:
        """Let go; nothing happens the second time.

        Raises:
            StoreError: it cannot be written down. In this process it is free all the same, elsewhere once this ends.
        """
        if not self._released.is_set():
            self._released.set()
            _held.discard(self._token)
            self._storage.put_if_absent(f"{self._path}.done", b"")

    def _beat(self) -> None:
        beat = {"at": time.monotonic(), "children": self._children}
        with contextlib.suppress(StoreError):
            self._storage.write(f"{self._path}.beat", json.dumps(beat).encode())

    def _take(self, name: str, beat_seconds: float) -> bool:
        """Hold it from now on; False where another was first."""

        def beat_until_released() -> None:
            while not self._released.wait(beat_seconds):
                self._beat()

        _held.add(self._token)  # before anybody can see it
        won = False
        try:
            won = self._storage.put_if_absent(
                f"{self._path}.json", json.dumps(_this_holder(name, self._token)).encode()
            )
        finally:
            if not won:
                _held.discard(self._token)
        if won:
            threading.Thread(target=beat_until_released, daemon=True, name=f"lease {name}").start()
        return won


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
    told = 0
    last_beat: tuple[int, bytes | None] = (0, None)
    last_moved = time.monotonic()
    while True:
        generation, holder = _holder(storage, key)
        if holder is not None and _is_dead_here(holder):
            _end_children(storage, key, generation)
        elif holder is not None:
            beat = (generation, storage.read(f"leases/{key}/{generation}.beat"))
            if beat != last_beat:
                last_beat, last_moved = beat, time.monotonic()
            if _is_here(holder) or time.monotonic() - last_moved < stale_seconds:
                if told != generation:
                    told = generation
                    who = f"process {holder['pid']} on {holder['host']}"
                    on_wait(f"waiting for {name}: {who} holds it since {holder['since']}")
                if done():
                    return None
                time.sleep(_POLL_SECONDS)
                continue
        lease = Lease(storage, key, generation + 1)
        if lease._take(name, min(_HEARTBEAT_SECONDS, stale_seconds / 4)):
            return lease


def holder_of(storage: Storage, key: str) -> dict[str, Any] | None:
    """Who holds the lease of `key` (pid, host, since, name), or None."""
    return _holder(storage, key)[1]


def process_start(pid: int) -> str | None:
    """Start time of a living process in clock ticks since boot; None when it is gone. With the pid it is unique."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


# Of the leases that this process holds. One of its own that is not here was lost: nobody will release it.
_held: set[str] = set()


def _holder(storage: Storage, key: str) -> tuple[int, dict[str, Any] | None]:
    """The newest generation and who holds it; None for nobody, or for a file that cannot be understood."""
    names = set(storage.names(f"leases/{key}"))
    top = max((int(name.removesuffix(".json")) for name in names if name.endswith(".json")), default=0)
    if not top or f"{top}.done" in names:
        return top, None
    holder = _read_json(storage, f"leases/{key}/{top}.json")
    return top, holder if holder.keys() >= _HOLDER_FIELDS else None


def _this_holder(name: str, token: str) -> dict[str, Any]:
    return {
        "name": name,
        "token": token,
        "pid": os.getpid(),
        "started": process_start(os.getpid()),
        "machine": _machine(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _machine() -> str:
    """Where a process id means what it means here: this boot, and this container's own numbering."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _is_here(holder: dict[str, Any]) -> bool:
    return bool(holder["machine"] == _machine())


def _is_dead_here(holder: dict[str, Any]) -> bool:
    if not _is_here(holder):
        return False
    if process_start(int(holder["pid"])) != holder["started"]:
        return True
    return holder["pid"] == os.getpid() and holder["token"] not in _held


def _end_children(storage: Storage, key: str, generation: int) -> None:
    for child in _read_json(storage, f"leases/{key}/{generation}.beat").get("children", ()):
        for number, seconds in ((signal.SIGTERM, _CHILD_GRACE_SECONDS), (signal.SIGKILL, _CHILD_LIMIT_SECONDS)):
            deadline = time.monotonic() + seconds
            if process_start(child["pid"]) == child["started"]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child["pid"], number)
            while process_start(child["pid"]) == child["started"] and time.monotonic() < deadline:
                time.sleep(0.05)


def _read_json(storage: Storage, path: str) -> dict[str, Any]:
    """The object at `path`; empty where there is none or it is none."""
    try:
        value = json.loads(storage.read(path) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
