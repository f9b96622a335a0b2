"""The process between a run and its child: when the run dies, by kill -9 too, everything below this ends.

Started by path with `python -I -S` (nothing of the project is imported), as `supervise.py <pid> <fd> <command…>`:
the run's process id, and the read end of a pipe that only the run holds open. The run is gone when its process is, or
when the pipe ends; a fork of the run may keep the pipe open, so both are watched. As a subreaper this process
inherits orphans, so no descendant can slip away. Should this process itself be killed, the kernel kills the command.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
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
    asked: set[int] = set()
    while pids := descendants(os.getpid()):
        kill = time.monotonic() >= deadline
        for pid in pids if kill else set(pids) - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
        asked.update(pids)
        reap()
        time.sleep(0.02)
    reap()


def main() -> int:
    parent, watched, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    libc, this = ctypes.CDLL(None), os.getpid()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    asked_to_end, ask = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(ask, b"."))
    run = os.pidfd_open(parent)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM

    def die_with_supervisor() -> None:  # in the child; safe, because this process has one thread
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != this:
            os._exit(1)

    environment = {**os.environ, "TULU_SUPERVISOR_PID": str(this)}
    try:
        child = subprocess.Popen(command, env=environment, preexec_fn=die_with_supervisor)
    except OSError as error:
        sys.stderr.write(f"cannot start: {error}\n")
        return 127
    ended = os.pidfd_open(child.pid)
    poller = select.poll()
    for descriptor in (run, watched, asked_to_end, ended):
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
    ready = {descriptor for descriptor, _ in poller.poll()}
    if ended not in ready:
        end_descendants(GRACE_SECONDS if ready == {asked_to_end} else 0.0)
        return 128 + signal.SIGTERM
    code = child.wait()
    end_descendants(0.0)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
