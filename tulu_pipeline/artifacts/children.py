"""Child processes that cannot outlive the run, and whose words reach it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.settings import child_environment

_words = logging.getLogger(__name__)

# Asks a child to end at its next good moment, and returns how many seconds it may take; 0 where it knows none.
AskToStop = Callable[[], float]

_SUPERVISOR = Path(__file__).with_name("supervise.py")
_PREFIX = EVENT_PREFIX.encode()
_TAIL_LINES = 25
_TAIL_BYTES = 16_384
_CHUNK_BYTES = 65_536
_PAUSE_SECONDS = 0.2
_ORPHAN_SECONDS = 2.0
_active: dict[subprocess.Popen[bytes], AskToStop] = {}
_active_lock = threading.Lock()


def ignore_event(event: dict[str, Any]) -> None:
    """The default for `on_event`."""


def no_good_moment() -> float:
    """The default for `ask_to_stop`."""
    return 0.0


def run_child(
    command: Sequence[str],
    *,
    ctx: RunContext,
    log: Path,
    env: Mapping[str, str] | None = None,
    on_event: Callable[[dict[str, Any]], None] = ignore_event,
    ask_to_stop: AskToStop = no_good_moment,
) -> None:
    """Run `command` to its end under a supervisor.

    The supervisor ends all descendants of the command when this process goes, however it goes, and when the
    command itself ends.

    Args:
        command: program and arguments.
        ctx: the run; told of the supervisor's pid.
        log: file that both output streams are appended to; what a full disk does not take of it is lost.
        env: variables on top of this process's environment.
        on_event: called with each event the child emits, in this thread.
        ask_to_stop: called by another thread when the run is asked to end, and not at once.

    Raises:
        StageFailed: the command ended with a non-zero code, which its cause has; `what` carries the last lines of the
            log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "ab", buffering=0) as log_file,
        supervised(command, stdout=subprocess.PIPE, stderr=log_file, env=env) as process,
    ):
        with _active_lock:
            _active[process] = ask_to_stop
        try:
            ctx.on_child(process.pid)
            relay = _Relay(log_file, log, on_event)
            for chunk in _output_of(process):
                if chunk:
                    relay.feed(chunk)
                else:
                    relay.flush()
            relay.flush(at_end=True)
            code = process.wait()
        finally:
            with _active_lock:
                _active.pop(process, None)
    if code:
        raise StageFailed(
            f"`{shlex.join(command[:4])} …` ended with code {code}\n{tail(log)}", str(log), "see the whole log there"
        ) from subprocess.CalledProcessError(code, list(command))


@contextlib.contextmanager
def supervised(
    command: Sequence[str],
    *,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` under a supervisor while the block runs; what is left of it and its descendants then ends at once.

    Args:
        command: program and arguments.
        stdout: where its output goes.
        stderr: likewise.
        stdin: what it reads.
        env: variables on top of this process's environment.

    Yields:
        The supervisor's process; asked to terminate, it gives its child a grace. It ends with the child's code.
    """
    watched, held = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR), str(os.getpid()), str(watched), *command],
            stdin=stdin,
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
        if process.stdout is not None:
            process.stdout.close()


def end_all_children() -> None:
    """Ask every running supervisor to end its tree; for an interrupted run."""
    with _active_lock:
        for process in _active:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)


def stop_all_children() -> None:
    """Ask the children that can be asked to end at their next good moment, and wait for them; end the others."""
    until: dict[subprocess.Popen[bytes], float] = {}
    with _active_lock:
        for process, ask_to_stop in _active.items():
            seconds = ask_to_stop()
            if seconds:
                until[process] = time.monotonic() + seconds
            else:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
    while any(process in _active and time.monotonic() < limit for process, limit in until.items()):
        time.sleep(_PAUSE_SECONDS)


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log file."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _output_of(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What comes through the pipe, b"" when nothing came for a while, until its end.

    Or until soon after the supervisor's end, where an orphan keeps the pipe open.
    """
    assert process.stdout is not None
    output, poller, give_up = process.stdout.fileno(), select.poll(), math.inf
    poller.register(output, select.POLLIN)
    while time.monotonic() < give_up:
        if poller.poll(_PAUSE_SECONDS * 1000):
            chunk = os.read(output, _CHUNK_BYTES)
            if not chunk:
                return
            yield chunk
        else:
            yield b""
            if give_up == math.inf and process.poll() is not None:
                give_up = time.monotonic() + _ORPHAN_SECONDS


class _Relay:
    """Parts a child's output into events and log; what is no event goes to the log line by line, or when it pauses."""

    def __init__(self, log_file: IO[bytes], log: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._log_file, self._log, self._on_event = log_file, log, on_event
        self._trouble = False
        self._rest = b""
        self._at_line_start = True
        self._blank_lines = 0  # the last of them belongs to an event that follows

    def feed(self, chunk: bytes) -> None:
        *lines, rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            event = _event(line) if self._at_line_start else None
            if event is not None:
                self._write(b"", before_event=True)
                self._on_event(event)
            elif not line and self._at_line_start:
                self._blank_lines += 1
            else:
                self._write(line + b"\n")
            self._at_line_start = True
        self._rest = rest
        if len(rest) > _CHUNK_BYTES:
            self.flush()

    def flush(self, *, at_end: bool = False) -> None:
        """Put an unfinished line into the log, unless it may become an event yet."""
        if at_end or not self._at_line_start or not _may_become_event(self._rest):
            self._write(self._rest)
            self._rest, self._at_line_start = b"", not self._rest and self._at_line_start

    def _write(self, text: bytes, *, before_event: bool = False) -> None:
        try:
            self._log_file.write(b"\n" * (self._blank_lines - before_event) + text)
        except OSError as error:  # a full disk: the child has other things to do than to talk
            if not self._trouble:
                _words.warning("%s: lines are lost: %s", self._log, error.strerror or error)
            self._trouble = True
        self._blank_lines = 0


def _event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None where it is none."""
    if not line.startswith(_PREFIX):
        return None
    try:
        event = json.loads(line.removeprefix(_PREFIX))
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _may_become_event(start: bytes) -> bool:
    return start.startswith(_PREFIX) or _PREFIX.startswith(start)
