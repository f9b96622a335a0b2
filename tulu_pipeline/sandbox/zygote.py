"""The process that programs are forked from, one at a time; what it needs to know is its only argument, as JSON.

It reads requests from stdin and writes replies to stdout, a JSON object a line each; the first line it writes is
`{"ready": true}` or `{"refused": why}`. It loads Python and what programs commonly import once, so that a program costs
a fork. It is two processes: the one that was started watches the run and this one's child, which serves; when the run
is gone, by kill -9 too, the watcher ends the child, and with the child's pid namespace ends whatever runs in it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from tulu_pipeline.sandbox import kernel
from tulu_pipeline.sandbox.launches import Bubblewrap, Fork, Launch, Namespaces
from tulu_pipeline.sandbox.watching import run_program

# What solutions and checks of the known benchmarks import; the rest of the library is loaded when it is asked for.
_COMMON = (
    "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq",
    "itertools", "math", "operator", "queue", "random", "re", "statistics", "string", "typing",
)  # fmt: skip


def main() -> None:
    """Go apart, serve, and leave nothing behind."""
    setup = json.loads(sys.argv[1])
    run = os.pidfd_open(setup["parent"])
    if os.getppid() != setup["parent"]:
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # short of memory, the kernel takes a program before the run
    folder = setup["folder"]
    try:
        if setup["tier"] == "namespaces":
            _into_namespaces()
        child = os.fork()
        if child == 0:
            kernel.end_with_parent(signal.SIGKILL)
            _serve(setup, folder)
        ended = os.pidfd_open(child)
        asked_to_end, ask = os.pipe()
        signal.signal(signal.SIGTERM, lambda *_: os.close(ask))
        poller = select.poll()
        for descriptor in (run, ended, asked_to_end):
            poller.register(descriptor, select.POLLIN | select.POLLHUP)
        poller.poll()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except OSError as error:
        _tell({"refused": str(error)})
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _into_namespaces() -> None:
    """New namespaces of every kind that matters, as nobody in them; the next child is the first of its pids."""
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(
        kernel.CLONE_NEWUSER
        | kernel.CLONE_NEWNS
        | kernel.CLONE_NEWPID
        | kernel.CLONE_NEWNET
        | kernel.CLONE_NEWIPC
        | kernel.CLONE_NEWUTS
    )
    for file, text in (("setgroups", "deny"), ("uid_map", f"65534 {user} 1"), ("gid_map", f"65534 {group} 1")):
        with open(f"/proc/self/{file}", "w") as settings:
            settings.write(text)


def _serve(setup: Mapping[str, Any], folder: str) -> NoReturn:
    """Reply to requests until there are no more."""
    try:
        for name in _COMMON:
            importlib.import_module(name)
        launch: Launch
        match setup["tier"]:
            case "namespaces":
                launch = Namespaces(setup["packages"])
            case "bubblewrap":
                launch = Bubblewrap(setup["packages"], setup["bwrap"], bounds_folders=setup["bounds_folders"])
            case _:
                launch = Fork(setup["packages"], folder)
    except OSError as error:
        _tell({"refused": str(error)})
        os._exit(1)
    _tell({"ready": True})
    gc.collect()
    gc.freeze()  # a program's collections leave the pages alone that it shares with this process
    for line in _lines(0):
        _tell(run_program(json.loads(line), launch))
    os._exit(0)


def _lines(descriptor: int) -> Iterator[bytes]:
    rest = b""
    while chunk := os.read(descriptor, 2**16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _tell(value: Mapping[str, Any]) -> None:
    line = memoryview(json.dumps(value).encode() + b"\n")
    while line:
        line = line[os.write(1, line) :]


if __name__ == "__main__":
    main()
