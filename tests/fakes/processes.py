"""The `tulu` command as a process that tests start, kill and look for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TULU = str(Path(sys.executable).with_name("tulu"))


def environment(**changes: str) -> dict[str, str]:
    """Ours without the project's own variables, and with `changes`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TULU_")} | changes


def tulu(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([TULU, *words], cwd=cwd, env=environment(**env), capture_output=True, text=True, check=False)


def tulu_json(*words: str, cwd: Path, **env: str) -> dict[str, Any]:
    """Run the command with `--json`; it must succeed."""
    done = tulu(*words, "--json", cwd=cwd, **env)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return dict(json.loads(done.stdout))


def start(*words: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """Start the command in the background; its output goes to `cwd / run.log`."""
    with open(cwd / "run.log", "a") as log:
        return subprocess.Popen([TULU, *words], cwd=cwd, env=environment(**env), stdout=log, stderr=log, text=True)


def kill_once(process: subprocess.Popen[str], ready: Callable[[], bool], timeout_seconds: float = 120.0) -> None:
    """Kill the process without warning as soon as `ready` says so; it must still be running then."""
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def left_behind(folder: Path, grace_seconds: float = 5.0) -> list[str]:
    """Command lines of processes that name `folder` and still run after the grace."""
    deadline = time.monotonic() + grace_seconds
    while (found := _naming(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _naming(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(entry.name) != os.getpid():
            found.append(line)
    return found
