"""How a program starts in each tier: from a fork of the serving process, alone or in a world of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tulu_pipeline.sandbox import inside, kernel, world
from tulu_pipeline.sandbox.confine import confine


class Launch:
    """Starts one program and gives its pid; `after` is called when it has ended."""

    def start(self, request: Mapping[str, Any], nonce: str, verdicts: int, output: int) -> int:
        raise NotImplementedError

    def after(self) -> None:
        """Nothing is left of a program."""


class Fork(Launch):
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


class Namespaces(Fork):
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


class Bubblewrap(Launch):
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
