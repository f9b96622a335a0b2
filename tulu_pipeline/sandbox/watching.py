"""One program from its start to its end: its time, what it writes, and what that says of it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import time
from collections.abc import Mapping
from typing import Any

from tulu_pipeline.sandbox.launches import Launch

OUTPUT_BYTES = 64 * 2**10
_LINE_BYTES = 64 * 2**10
_START_SECONDS = 30.0
_EXAMINATION_SECONDS = 0.5


def run_program(request: Mapping[str, Any], launch: Launch) -> dict[str, Any]:
    """One program from its start to its end, and what is known of it then."""
    nonce = secrets.token_hex(16)
    verdicts, write_verdicts = os.pipe()
    output, write_output = os.pipe()
    child = launch.start(request, nonce, write_verdicts, write_output)
    os.close(write_verdicts)
    os.close(write_output)
    watched = _Watched(verdicts, output, nonce)
    started = time.monotonic()
    watched.watch(child, request["timeout_seconds"])
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    watched.drain()
    os.close(verdicts)
    os.close(output)
    launch.after()
    return {
        **watched.result(os.waitstatus_to_exitcode(status)),
        "seconds": round(time.monotonic() - started, 4),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 4),
        "output": watched.output.decode(errors="replace"),
    }


class _Watched:
    """What a program writes, while it may run."""

    def __init__(self, verdicts: int, output: int, nonce: str) -> None:
        self.output = b""
        self.timed_out = False
        self._verdicts, self._output, self._nonce = verdicts, output, nonce
        self._said = b""
        self._open = {verdicts, output}
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def watch(self, child: int, timeout_seconds: float) -> None:
        """Until the program has ended, or its time has; the clock starts when it does."""
        ended = os.pidfd_open(child)
        poller = select.poll()
        for descriptor in (ended, self._verdicts, self._output):
            poller.register(descriptor, select.POLLIN)
        started = decided = False
        until = time.monotonic() + timeout_seconds + _START_SECONDS
        while (left := until - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poller.poll(left * 1000 + 1)}
            for descriptor in ready & self._open:
                self._read(descriptor)
                if descriptor not in self._open:
                    poller.unregister(descriptor)
            if not decided and self._nonce.encode() in self._said:
                decided, until = True, time.monotonic() + _EXAMINATION_SECONDS
            elif not started and self._said:
                started, until = True, time.monotonic() + timeout_seconds
            if ended in ready:
                break
        else:
            self.timed_out = True
        os.close(ended)

    def drain(self) -> None:
        """What was written before the end and not read yet."""
        for descriptor in tuple(self._open):
            while self._read(descriptor):
                pass

    def result(self, code: int) -> dict[str, Any]:
        """How the program ended."""
        lines = [
            line for line in (_parsed(line) for line in self._said.split(b"\n")) if line.get("nonce") == self._nonce
        ]
        broken = next((line["broken"] for line in lines if "broken" in line), None)
        if broken is not None:
            return {"broken": broken}
        flags = sorted({flag for line in lines for flag in line.get("flags", ())})
        said = next((line for line in lines if "outcome" in line), None)
        if said is not None:
            return {"outcome": said["outcome"], "error": said["error"], "flags": flags}
        if self.timed_out or -code == signal.SIGXCPU:
            return {"outcome": "timed_out", "error": "", "flags": flags}
        if code < 0:
            return {"outcome": "killed", "error": signal.Signals(-code).name, "flags": flags}
        return {"outcome": "exited", "error": f"exit code {code}", "flags": [*flags, "early_exit"]}

    def _read(self, descriptor: int) -> bool:
        """Take what is there; False where nothing is, now or ever again."""
        try:
            chunk = os.read(descriptor, 2**16)
        except BlockingIOError:
            return False
        if not chunk:
            self._open.discard(descriptor)
            return False
        if descriptor == self._output:
            self.output += chunk[: OUTPUT_BYTES - len(self.output)]
        else:
            self._said += chunk[: _LINE_BYTES - len(self._said)]
        return True


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
