"""An error in any call to the disk is a failure every time, and leaves each artifact whole or not there at all."""

import builtins
import errno
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from toy_graph import Workshop

from tulu_pipeline.artifacts import manifest as manifest_module
from tulu_pipeline.artifacts import storage as storage_module
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.plan import Status
from tulu_pipeline.artifacts.stage import Job
from tulu_pipeline.errors import StoreError

ROOT = Path(__file__).parent.parent.parent


class Trap:
    """Calls a function and counts; one of the calls raises instead."""

    def __init__(self, real: Callable[..., Any], at: int | None, error: int) -> None:
        self._real, self._at, self._error = real, at, error
        self._lock = threading.Lock()
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            number, self.calls = self.calls, self.calls + 1
        if number == self._at:
            raise OSError(self._error, os.strerror(self._error))
        return self._real(*args, **options)


class FullDisk(io.FileIO):
    """A file of which half of a write fits on the disk."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDiskTrap(Trap):
    """`open`, where one of the files that are created is on a full disk."""

    def __call__(self, path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode != "xb":
            return self._real(path, mode, *args, **options)
        try:
            return super().__call__(path, mode, *args, **options)
        except OSError:
            return FullDisk(path, "x")


@contextmanager
def trapped(name: str, at: int | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    with monkeypatch.context() as patch:
        if name == "open":
            trap: Trap = FullDiskTrap(builtins.open, at, errno.ENOSPC)
            patch.setattr(storage_module, "open", trap, raising=False)
        else:
            trap = Trap(getattr(os, name), at, errno.EIO)
            patch.setattr(os, name, trap)
        yield trap


def graph(shop: Workshop) -> Artifact:
    def act(job: Job[Any]) -> None:
        (job.aux / "log").write_text("log")
        (job.work / "scratch").write_text("scratch")

    shop.acts = {"write[a]": act}
    return shop.node("join", "b", "+", (shop.node("write", "a", "a"),))


def check_whole(shop: Workshop) -> None:
    """Whatever is there is whole, and a run goes on from there by itself."""
    statuses = shop.statuses(graph(shop))
    for manifest in shop.store.manifests():
        shop.store.verify(manifest)
    there = [name for name, status in statuses.items() if status is Status.HIT]
    shop.ran()
    result = shop.run(graph(shop))
    assert (result.failed, result.blocked) == ([], [])
    assert not set(shop.ran()) & set(there), "what was there was made again"
    assert set(shop.statuses(graph(shop)).values()) == {Status.HIT}
    assert shop.text(graph(shop)) == "a+"
    for manifest in shop.store.manifests():
        shop.store.verify(manifest)
    assert list((shop.folder / "store").rglob(".tmp-*")) == []


def count(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    shop = Workshop(tmp_path / "count")
    with trapped(name, None, monkeypatch) as trap:
        assert not shop.run(graph(shop)).failed
    shutil.rmtree(tmp_path / "count")
    return trap.calls


@pytest.mark.parametrize("name", ["fsync", "link", "replace", "symlink", "open"])
def test_error_in_any_call_is_a_failure_and_leaves_nothing_torn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count(name, tmp_path, monkeypatch)
    assert calls >= 2
    for at in range(calls):
        shop = Workshop(tmp_path / f"{name}-{at}")
        target = graph(shop)
        with trapped(name, at, monkeypatch) as trap:
            failed = shop.run(target).failed
        assert failed, f"call {at} of {trap.calls} to {name} failed and nobody said so"
        check_whole(shop)


@pytest.mark.parametrize("name", ["unlink", "rmdir", "rename", "mkdir"])
def test_error_that_may_not_matter_tears_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(count(name, tmp_path, monkeypatch)):
        shop = Workshop(tmp_path / f"{name}-{at}")
        target = graph(shop)
        with trapped(name, at, monkeypatch):
            shop.run(target)
        for manifest in shop.store.manifests():
            shop.store.verify(manifest)
        assert not shop.run(graph(shop)).failed
        assert shop.text(graph(shop)) == "a+"


@pytest.mark.parametrize("operation", ["put_if_absent", "write", "read", "names", "exists", "upload", "download"])
def test_error_in_any_call_to_a_remote_store_is_a_failure(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_with(at: int | None, name: str) -> tuple[Workshop, Trap, list[Any]]:
        shop = Workshop(tmp_path / name, url=f"memory://{tmp_path}/{name}")
        target, trap = graph(shop), Trap(getattr(shop.store.storage, operation), at, errno.EIO)
        if operation == "download":  # its own payloads are there already: read them from elsewhere
            shop.run(target)
            shop = Workshop(tmp_path / f"{name}-elsewhere", url=f"memory://{tmp_path}/{name}")
            target = shop.node("join", "c", "!", (graph(shop),))
            trap = Trap(getattr(shop.store.storage, operation), at, errno.EIO)
        with monkeypatch.context() as patch:
            patch.setattr(shop.store.storage, operation, trap)
            try:
                return shop, trap, list(shop.run(target).failed)
            except OSError as error:  # of the plan; a local store would say where and how to mend it
                return shop, trap, [error]

    _, trap, failed = run_with(None, "count")
    assert not failed
    assert trap.calls
    for at in range(trap.calls):
        shop, _, failed = run_with(at, str(at))
        assert failed, f"call {at} of {trap.calls} to {operation} failed and nobody said so"
        for manifest in shop.store.manifests():
            shop.store.verify(manifest)
        assert not shop.run(graph(shop)).failed
        assert shop.text(graph(shop)) == "a+"


def test_payload_that_cannot_be_read_back_is_not_published(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(manifest_module, "open", unreadable, raising=False)
        (failure,) = shop.run(shop.node("write", "a", "a")).failed
    assert isinstance(failure.error, StoreError)
    assert list(shop.store.manifests()) == []


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, "tests")
from toy_graph import Workshop
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], check=True)
shop = Workshop(disk, slots=1)  # side by side, the small one may find the disk full as well
def fill(job):
    (job.work / "kept").write_text("kept")
    (job.out / "large").write_bytes(b"x" * 400_000)
shop.acts["write[large]"] = fill
graph = lambda: shop.node("join", "t", "", (shop.node("write", "large", "a"), shop.node("write", "small", "b")))
(failure,) = shop.run(graph()).failed
assert (failure.name, failure.error.what) == ("write[large]", "the disk is full"), failure
assert "free space" in failure.error.fix
assert {name: status.value for name, status in shop.statuses(graph()).items()} == {
    "write[large]": "MISS", "write[small]": "HIT", "join[t]": "WAITS"}
assert not list((disk / "store" / "data" / "write").glob("*/large"))
subprocess.run(["mount", "-o", "remount,size=2m", disk], check=True)
shop.ran()
assert not shop.run(graph()).failed
assert shop.ran() == ["write[large]", "join[t]"]
for manifest in shop.store.manifests():
    shop.store.verify(manifest)
print("gone on")
"""


def test_full_disk_is_told_and_the_same_command_goes_on_once_there_is_room(tmp_path: Path) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here, so no small disk can be mounted")
    command = [*unshare, sys.executable, "-c", ON_A_SMALL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "gone on\n", done.stderr
