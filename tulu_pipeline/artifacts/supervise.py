"""The process between a run and its child: when the run dies, by kill -9 too, everything below this ends.

Started by path with `python -I -S` (nothing of the project is imported), as
`supervise.py <fd> <command…>`. The read end of a pipe that only the run holds open is <fd>: end of file there
means the run is gone. As a subreaper this process inherits orphans, so no descendant can slip away.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 3.0


def descendants(root: int) -> list[int]:
    """Every living process below `root`, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found.extend(below)
        queue.extend(below)
    return found


def reap() -> None:
    """Collect whatever has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_descendants(grace_seconds: float) -> None:
    """SIGTERM, then SIGKILL after the grace, until no descendant is left."""
    deadline = time.monotonic() + grace_seconds
    number = signal.SIGTERM if grace_seconds else signal.SIGKILL
    while pids := descendants(os.getpid()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        reap()
        time.sleep(0.02)
        if time.monotonic() > deadline:
            number = signal.SIGKILL
    reap()


def main() -> int:
    watched, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked_to_end, asked_end_write = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(asked_end_write, b"."))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment = {**os.environ, "TULU_SUPERVISOR_PID": str(os.getpid())}
    child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    ended = os.pidfd_open(child.pid)
    poller = select.poll()
    for descriptor in (watched, asked_to_end, ended):
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poller.poll()}
    if watched in ready or asked_to_end in ready:
        end_descendants(0.0 if watched in ready else GRACE_SECONDS)
        return 128 + signal.SIGTERM
    code = child.wait()
    end_descendants(0.0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
