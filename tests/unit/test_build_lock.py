"""Compiling an extension: whoever is killed at it holds up nobody, and two never do it at once."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fakes.waiting import wait_for

from tulu_pipeline.training.build_lock import building_alone

baton = pytest.importorskip("torch.utils.file_baton")

# As `torch.utils.cpp_extension.load` holds its folder while it compiles.
BUILDS = """
import sys, time
from pathlib import Path
from torch.utils.file_baton import FileBaton
from tulu_pipeline.training.build_lock import building_alone
folder = Path(sys.argv[1])
with building_alone(folder):
    held = FileBaton(str(folder / "lock"))
    assert held.try_acquire()
    while not (folder / "done").exists():
        time.sleep(0.02)
    held.release()
"""


def build(folder: Path) -> subprocess.Popen[bytes]:
    """A process that compiles until there is `done`."""
    process = subprocess.Popen([sys.executable, "-c", BUILDS, str(folder)])
    wait_for((folder / "lock").exists, seconds=60)
    return process


def test_after_a_kill_while_it_compiled_the_next_one_compiles(tmp_path: Path) -> None:
    killed = build(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not baton.FileBaton(str(tmp_path / "lock")).try_acquire(), "torch alone would wait for ever"
    with building_alone(tmp_path):
        assert baton.FileBaton(str(tmp_path / "lock")).try_acquire()


def test_one_that_compiles_is_waited_for_and_keeps_its_lock(tmp_path: Path) -> None:
    first, came = build(tmp_path), threading.Event()

    def second() -> None:
        with building_alone(tmp_path):
            came.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    try:
        assert not came.wait(timeout=1)
        assert (tmp_path / "lock").exists()
    finally:
        (tmp_path / "done").touch()
        assert first.wait(timeout=60) == 0
        waiting.join(timeout=60)
    assert came.is_set()


def test_on_nfs_what_a_killed_one_left_is_removed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf)  # as NFS does it: it wants a file that is open for writing
    (tmp_path / "lock").touch()
    with building_alone(tmp_path):
        assert not (tmp_path / "lock").exists()


def test_where_nothing_can_be_locked_torchs_lock_is_left_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / "lock").touch()
    with building_alone(tmp_path):
        assert (tmp_path / "lock").exists()
