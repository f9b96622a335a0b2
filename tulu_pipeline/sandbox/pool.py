"""Many programs at a time, each in a sandbox of its own: `run_programs`."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tulu_pipeline.errors import StageFailed
from tulu_pipeline.sandbox import turns
from tulu_pipeline.sandbox.program import Program, Tier, Verdict
from tulu_pipeline.sandbox.suspicion import suspicions
from tulu_pipeline.sandbox.tiers import bwrap, bwrap_bounds_folders

_ROOT = Path(__file__).resolve().parents[2]
_AHEAD_CHARACTERS = 8_000  # a request that waits while another runs must fit the pipe
# A program that had a processor to itself for less of its time than this was kept waiting by others, or by itself.
_UNDISTURBED = 0.9


def run_programs(
    programs: Iterable[Program],
    *,
    timeout_seconds: float,
    workers: int,
    tier: Tier,
    packages: Mapping[str, Path] | None = None,
    on_process: Callable[[int], None] = lambda pid: None,
) -> Iterator[Verdict]:
    """Execute programs side by side; verdicts as they are reached.

    One that ran out of time while it did not have a processor to itself is tried again at the end, when no program of
    any other pool runs on this machine, and that verdict holds: how many run side by side decides nothing.

    Args:
        programs: read as there is room for them.
        timeout_seconds: by the clock, for each.
        workers: how many at a time.
        tier: what they run in.
        packages: folders that programs may import beside Python's own library, by name.
        on_process: told of each process that runs programs.

    Raises:
        StageFailed: a sandbox could not be made, or died twice over a program.
    """
    slow: list[Program] = []
    with contextlib.ExitStack() as stack:
        zygotes = [stack.enter_context(_Zygote(tier, packages or {}, on_process)) for _ in range(max(1, workers))]
        with turns.side_by_side():
            for program, verdict in _spread(programs, zygotes, timeout_seconds):
                if verdict.outcome == "timed_out" and verdict.cpu_seconds < _UNDISTURBED * timeout_seconds:
                    slow.append(program)
                else:
                    yield verdict
        if not slow:
            return
        with turns.alone():
            for program, verdict in _spread(slow, zygotes[:1], timeout_seconds, ahead=1):
                yield replace(verdict, attempts=2, program_id=program.program_id)


def try_out(tier: Tier) -> str:
    """Why a tier cannot run a program here; "" where it can."""
    program = Program(program_id="0", source="assert 1 + 1 == 2")
    try:
        (verdict,) = run_programs([program], timeout_seconds=10, workers=1, tier=tier)
    except StageFailed as error:
        return error.what
    return "" if verdict.passed else f"a program that should pass {verdict.outcome}: {verdict.error}"


def _spread(
    programs: Iterable[Program], zygotes: list[_Zygote], timeout_seconds: float, ahead: int = 2
) -> Iterator[tuple[Program, Verdict]]:
    """Each program with its verdict; a zygote is given the next while it runs one, so that it never waits for us."""
    waiting = iter(programs)
    left = True
    with selectors.DefaultSelector() as selector:
        for zygote in zygotes:
            selector.register(zygote.replies, selectors.EVENT_READ, zygote)
        while True:
            for zygote in sorted(zygotes, key=lambda each: len(each.given)):
                while left and zygote.has_room(ahead):
                    program = next(waiting, None)
                    left = program is not None
                    if program is not None:
                        zygote.give(program, timeout_seconds)
            if not any(zygote.given for zygote in zygotes):
                return
            for key, _ in selector.select():
                zygote = key.data
                replies = zygote.take()
                if replies is None:  # it died: another takes its place, and its programs
                    selector.unregister(key.fileobj)
                    zygote.start_again(timeout_seconds)
                    selector.register(zygote.replies, selectors.EVENT_READ, zygote)
                else:
                    yield from replies


class _Zygote:
    """A process that runs programs one by one; a context manager."""

    def __init__(self, tier: Tier, packages: Mapping[str, Path], on_process: Callable[[int], None]) -> None:
        self._on_process = on_process
        self.given: deque[Program] = deque()
        self._rest = b""
        self._setup = {
            "tier": tier,
            "parent": os.getpid(),
            "packages": {name: str(path.resolve()) for name, path in packages.items()},
            "bwrap": bwrap(),
            "bounds_folders": tier == "bubblewrap" and bwrap_bounds_folders(),
        }
        self._died = 0
        self._start()

    def __enter__(self) -> _Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def replies(self) -> int:
        """The descriptor that replies come through."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def has_room(self, ahead: int) -> bool:
        """Whether it takes one more program; one it does not run yet must be small."""
        return not self.given or (
            len(self.given) < ahead and all(len(each.source) < _AHEAD_CHARACTERS for each in self.given)
        )

    def give(self, program: Program, timeout_seconds: float) -> None:
        """One more program to run."""
        self.given.append(program)
        request = {
            "source": program.source,
            "entry_point": program.entry_point,
            "timeout_seconds": timeout_seconds,
        }
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `take` sees that it died
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def take(self) -> list[tuple[Program, Verdict]] | None:
        """The verdicts that are there; None where the process has ended.

        Raises:
            StageFailed: the sandbox could not be made.
        """
        chunk = os.read(self.replies, 2**16)
        if not chunk:
            return None
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [self._verdict(json.loads(line)) for line in lines]

    def start_again(self, timeout_seconds: float) -> None:
        """Another process in place of one that died; its programs start anew.

        Raises:
            StageFailed: not for the first time since a program came to its end.
        """
        self._end()
        self._died += 1
        first = self.given[0].program_id if self.given else "none"
        if self._died > 1:
            raise StageFailed(f"the sandbox died twice: {self._why()}", f"program `{first}`", "see the machine's log")
        self._start()
        given, self.given = self.given, deque()
        for program in given:
            self.give(program, timeout_seconds)

    def _verdict(self, reply: Mapping[str, Any]) -> tuple[Program, Verdict]:
        program = self.given.popleft()
        if "broken" in reply:
            raise StageFailed(
                f"the sandbox could not be made: {reply['broken']}", f"program `{program.program_id}`", "`tulu doctor`"
            )
        self._died = 0
        answer = program.answer or program.source
        before = program.source[: program.source.find(answer)]
        flags = {*reply["flags"], *suspicions(answer, inside=before)}
        return program, Verdict(program_id=program.program_id, **{**reply, "flags": tuple(sorted(flags))})

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `_end` closes it
        self._rest = b""
        # Of the tier `none`. The process takes it away when the run is gone, the run when the process is.
        self._folder = tempfile.mkdtemp(prefix="tulu-program-") if self._setup["tier"] == "none" else ""
        environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"}
        python = getattr(sys, "_base_executable", None) or sys.executable
        command = [
            python,
            "-s",
            "-P",
            "-S",
            "-B",
            "-m",
            "tulu_pipeline.sandbox.zygote",
            json.dumps({**self._setup, "folder": self._folder}),
        ]
        where, fix = f"tier `{self._setup['tier']}`", "`tulu doctor`"
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise StageFailed(f"the sandbox could not be made: {error}", where, fix) from error
        self._on_process(self._process.pid)
        first = self._first_line()
        if first != {"ready": True}:
            self._end()
            why = first["refused"] if first else self._why()
            raise StageFailed(f"the sandbox could not be made: {why}", where, fix)

    def _first_line(self) -> dict[str, Any]:
        said = b""
        while not said.endswith(b"\n"):
            chunk = os.read(self.replies, 1)
            if not chunk:
                return {}
            said += chunk
        value: dict[str, Any] = json.loads(said)
        return value

    def _why(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason was given"

    def _end(self) -> None:
        """End it and what it runs, and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.terminate()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
