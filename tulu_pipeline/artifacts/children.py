"""Child processes that cannot outlive the run, and whose words reach it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.settings import child_environment

log = logging.getLogger(__name__)

_SUPERVISOR = Path(__file__).with_name("supervise.py")
_TAIL_LINES = 25
_active: set[subprocess.Popen[bytes]] = set()
_active_lock = threading.Lock()


def ignore_event(event: dict[str, Any]) -> None:
    """The default for `on_event`."""


def run_child(
    command: Sequence[str],
    *,
    ctx: RunContext,
    log: Path,
    env: Mapping[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], None] = ignore_event,
) -> None:
    """Run `command` to its end under a supervisor.

    The supervisor ends all descendants of the command when this process goes, however it goes, and when the
    command itself ends.

    Args:
        command: program and arguments.
        ctx: the run; told of the supervisor's pid.
        log: file that both output streams are appended to.
        env: variables on top of this process's environment.
        on_event: called with each event the child emits, in this thread.

    Raises:
        StageFailed: the command ended with a non-zero code; `what` carries the last lines of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "ab", buffering=0) as log_file,
        supervised(command, stdout=subprocess.PIPE, stderr=log_file, env=env) as process,
    ):
        with _active_lock:
            _active.add(process)
        try:
            ctx.on_child(process.pid)
            _relay(process, log_file, on_event)
            code = process.wait()
        finally:
            with _active_lock:
                _active.discard(process)
    if code:
        raise StageFailed(
            f"`{shlex.join(command[:4])} …` ended with code {code}\n{tail(log)}", str(log), "see the whole log there"
        )


@contextlib.contextmanager
def supervised(
    command: Sequence[str], *, stdout: int | IO[bytes], stderr: int | IO[bytes], env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` under a supervisor while the block runs; what is left of it and its descendants then ends at once.

    Args:
        command: program and arguments.
        stdout: where its output goes.
        stderr: likewise.
        env: variables on top of this process's environment.

    Yields:
        The supervisor's process; asked to terminate, it gives its child a grace. It ends with the child's code.
    """
    watched, held = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR), str(watched), *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=child_environment(**(env or {})),
            pass_fds=(watched,),
            start_new_session=True,
        )
    except BaseException:
        os.close(held)
        raise
    finally:
        os.close(watched)
    try:
        yield process
    finally:
        os.close(held)
        process.wait()


def end_all_children() -> None:
    """Ask every running supervisor to end its tree; for an interrupted run."""
    with _active_lock:
        for process in _active:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log file."""
    try:
        text = log.read_bytes()[-16_384:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _relay(process: subprocess.Popen[bytes], log_file: Any, on_event: Callable[[dict[str, Any]], None]) -> None:
    assert process.stdout is not None
    prefix = EVENT_PREFIX.encode()
    for line in process.stdout:
        if line.startswith(prefix):
            try:
                event = json.loads(line[len(prefix) :])
            except json.JSONDecodeError:
                log.warning("a child's event is no JSON: %r", line[:200])
                continue
            on_event(event)
        elif line != b"\n":
            log_file.write(line)
