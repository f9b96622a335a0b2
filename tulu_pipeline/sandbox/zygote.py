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
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tulu_pipeline.sandbox import inside, kernel, world
from tulu_pipeline.sandbox.confine import confine

OUTPUT_BYTES = 64 * 2**10
_LINE_BYTES = 64 * 2**10
_START_SECONDS = 30.0
_EXAMINATION_SECONDS = 0.5
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
        launch: _Launch
        match setup["tier"]:
            case "namespaces":
                launch = _Namespaces(setup["packages"])
            case "bubblewrap":
                launch = _Bubblewrap(setup["packages"], setup["bwrap"], bounds_folders=setup["bounds_folders"])
            case _:
                launch = _Fork(setup["packages"], folder)
    except OSError as error:
        _tell({"refused": str(error)})
        os._exit(1)
    _tell({"ready": True})
    gc.collect()
    gc.freeze()  # a program's collections leave the pages alone that it shares with this process
    for line in _lines(0):
        _tell(_run(json.loads(line), launch))
    os._exit(0)


class _Launch:
    """Starts one program and gives its pid; `after` is called when it has ended."""

    def start(self, request: Mapping[str, Any], nonce: str, verdicts: int, output: int) -> int:
        raise NotImplementedError

    def after(self) -> None:
        """Nothing is left of a program."""


class _Fork(_Launch):
    """A child of this process in the machine's own world: limits and refused calls alone."""

    def __init__(self, packages: Mapping[str, str], folder: str) -> None:
        self._folder = folder
        sys.path.extend(sorted({str(Path(path).parent) for path in packages.values()}))

    def start(self, request: Mapping[str, Any], nonce: str, verdicts: int, output: int) -> int:
        child = os.fork()
        if child:
            return child
        try:
            kernel.end_with_parent(signal.SIGKILL)
            _only(verdicts, output)
            self._enter()
            world.without_ours()
            confine(request["timeout_seconds"])
            inside.run(request["source"], request["entry_point"], nonce, verdicts)
        except BaseException as error:  # noqa: BLE001 - this is another process than the one that serves
            with contextlib.suppress(OSError):
                os.write(verdicts, json.dumps({"nonce": nonce, "broken": repr(error)}).encode() + b"\n")
        finally:
            os._exit(0)

    def after(self) -> None:
        for path in Path(self._folder).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    def _enter(self) -> None:
        os.chdir(self._folder)


class _Namespaces(_Fork):
    """The first of its own pids, in a world of Python's library and an empty folder."""

    def __init__(self, packages: Mapping[str, str]) -> None:
        super().__init__({}, "")
        self._ours = os.open("/proc/self/ns/pid", os.O_RDONLY)
        world.enter(packages)
        sys.path.append(world.PACKAGES)

    def start(self, request: Mapping[str, Any], nonce: str, verdicts: int, output: int) -> int:
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            return super().start(request, nonce, verdicts, output)
        finally:
            kernel.setns(self._ours, kernel.CLONE_NEWPID)

    def after(self) -> None:
        """The folder went with the program's mount namespace."""

    def _enter(self) -> None:
        world.mount_scratch()


class _Bubblewrap(_Launch):
    """`bwrap` builds the world; inside, a fresh Python confines itself."""

    def __init__(self, packages: Mapping[str, str], bwrap: str, *, bounds_folders: bool) -> None:
        ours = Path(__file__).resolve().parents[2]
        binds = {path: path for path in world.library()}
        binds |= {path: f"{world.PACKAGES}/{name}" for name, path in packages.items()}
        binds[sys.executable] = sys.executable
        modules = ("__init__.py", "sandbox")
        binds |= {f"{ours}/tulu_pipeline/{module}": f"/ours/tulu_pipeline/{module}" for module in modules}
        words = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        for source, target in binds.items():
            words += ["--ro-bind", source, target]
        for path in world.DEVICES:
            words += ["--dev-bind", path, path]
        for path, target in world.links().items():
            words += ["--symlink", target, path]
        words += ["--size", str(world.SCRATCH_BYTES)] if bounds_folders else []
        words += ["--tmpfs", world.SCRATCH, "--remount-ro", "/", "--chdir", world.SCRATCH, "--clearenv"]
        for name, value in (("PYTHONHASHSEED", "0"), ("PYTHONPATH", "/ours")):
            words += ["--setenv", name, value]
        words += [sys.executable, "-s", "-P", "-S", "-B", "-m", "tulu_pipeline.sandbox.inside"]
        self._words = words

    def start(self, request: Mapping[str, Any], nonce: str, verdicts: int, output: int) -> int:
        with tempfile.TemporaryFile() as task:
            wanted = {**request, "nonce": nonce, "path": [world.PACKAGES]}
            task.write(json.dumps(wanted).encode())
            task.seek(0)
            child = os.fork()
            if child:
                return child
            try:
                kernel.end_with_parent(signal.SIGKILL)
                number = os.dup(task.fileno())
                for descriptor in (verdicts, number):
                    os.set_inheritable(descriptor, True)
                null = os.open(os.devnull, os.O_RDONLY)
                for source, target in ((null, 0), (output, 1), (output, 2)):
                    os.dup2(source, target)
                os.execv(self._words[0], [*self._words, str(number), str(verdicts)])
            finally:
                os._exit(127)


def _only(verdicts: int, output: int) -> None:
    """Leave a program no descriptor of ours but the two that are its own."""
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.closerange(3, verdicts)
    os.closerange(verdicts + 1, 2**16)


def _run(request: Mapping[str, Any], launch: _Launch) -> dict[str, Any]:
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
