"""A lease is held by one at a time, a dead holder is followed at once, and a lease that is lost costs nothing more."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import wait_for

from tulu_pipeline.artifacts.lease import Lease, acquire, holder_of, process_start
from tulu_pipeline.artifacts.storage import LocalStorage
from tulu_pipeline.errors import StoreError

KEY = "k" * 64
HOLD = """
import sys, time
from pathlib import Path
from tulu_pipeline.artifacts.lease import acquire
from tulu_pipeline.artifacts.storage import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
lease = acquire(storage, sys.argv[2], name="toy[a]", stale_seconds=60, on_wait=print, done=lambda: False)
for pid in sys.argv[3:]:
    lease.add_child(int(pid))
print("held", flush=True)
time.sleep(600)
"""
SLOW_TO_END = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: time.sleep(0.5) or exit())
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@pytest.fixture
def hold(storage: LocalStorage) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a process that holds the lease."""
    with ExitStack() as stack:

        def start(*children: int) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-c", HOLD, storage.url, KEY, *map(str, children)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            return process

        yield start


def take(
    storage: LocalStorage,
    *,
    stale_seconds: float = 60.0,
    done: Callable[[], bool] = lambda: False,
    told: list[str] | None = None,
) -> Lease | None:
    tell = [] if told is None else told
    return acquire(storage, KEY, name="toy[a]", stale_seconds=stale_seconds, on_wait=tell.append, done=done)


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def held(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


def test_free_lease_is_held_at_once_and_again_after_its_release(storage: LocalStorage) -> None:
    first = held(take(storage))
    holder = holder_of(storage, KEY)
    assert holder is not None
    assert (holder["pid"], holder["name"]) == (os.getpid(), "toy[a]")
    first.release()
    assert holder_of(storage, KEY) is None
    second = held(take(storage))
    assert second.generation == first.generation + 1
    second.release()


def test_releasing_twice_is_releasing_once(storage: LocalStorage) -> None:
    first = held(take(storage))
    first.release()
    second = held(take(storage))
    first.release()
    assert holder_of(storage, KEY) is not None
    second.release()


def test_one_thread_holds_at_a_time(storage: LocalStorage) -> None:
    inside, most, turns, lock = 0, 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most, turns
        lease = held(take(storage))
        with lock:
            inside += 1
            most, turns = max(most, inside), turns + 1
        time.sleep(0.01)
        with lock:
            inside -= 1
        lease.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 6)


def test_waiter_is_told_once_who_holds_and_since_when(
    storage: LocalStorage, hold: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    holder, told = hold(), list[str]()
    began = time.monotonic()
    assert take(storage, done=lambda: time.monotonic() - began > 1.2, told=told) is None
    (line,) = told
    assert f"process {holder.pid} on " in line
    assert "toy[a]" in line
    assert "since 20" in line


def test_dead_holder_on_this_host_is_followed_at_once(
    storage: LocalStorage, hold: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    hold().kill()
    told: list[str] = []
    lease = held(take(storage, told=told))
    assert lease.generation == 2
    lease.release()


def test_holder_that_dies_while_waited_for_is_followed_at_once(
    storage: LocalStorage, hold: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    holder = hold()
    threading.Timer(0.5, holder.kill).start()
    assert seconds(lambda: held(take(storage)).release()) < 3


def test_living_holder_on_this_host_is_waited_for_though_silent(
    storage: LocalStorage, hold: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    holder = hold()
    holder.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert take(storage, stale_seconds=0.3, done=lambda: time.monotonic() - began > 1.5) is None
    assert holder_of(storage, KEY)["pid"] == holder.pid  # type: ignore[index]


def test_children_of_a_dead_holder_are_ended_before_it_is_followed(
    storage: LocalStorage, hold: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW_TO_END], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        hold(child.pid).kill()
        held(take(storage)).release()
        assert process_start(child.pid) is None
        child.kill()


def test_child_of_a_holder_that_let_go_is_left_alone(storage: LocalStorage) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        lease = held(take(storage))
        lease.add_child(child.pid)
        lease.release()
        held(take(storage)).release()
        assert child.poll() is None
        child.kill()


def test_process_that_took_over_a_dead_childs_number_is_left_alone(storage: LocalStorage) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        write_holder(storage, pid=2**22 + 1)
        beat = {"children": [{"pid": other.pid, "started": "long ago"}]}
        storage.write(f"leases/{KEY}/1.beat", json.dumps(beat).encode())
        held(take(storage)).release()
        assert other.poll() is None
        other.kill()


def write_holder(storage: LocalStorage, generation: int = 1, **changes: Any) -> None:
    """A lease as another process would have written it."""
    held(take(LocalStorage(storage.local / "model"))).release()
    model = json.loads(storage.read(f"model/leases/{KEY}/1.json") or b"")
    storage.remove("model")
    storage.put_if_absent(f"leases/{KEY}/{generation}.json", json.dumps(model | changes).encode())


def test_holder_whose_number_another_process_has_now_is_dead(storage: LocalStorage) -> None:
    write_holder(storage, pid=os.getppid(), started="1")
    assert seconds(lambda: held(take(storage)).release()) < 2


def test_lease_that_this_process_forgot_to_release_is_not_waited_for(storage: LocalStorage) -> None:
    write_holder(storage)
    assert seconds(lambda: held(take(storage)).release()) < 2


def test_silent_holder_elsewhere_is_followed_after_a_while_by_the_waiters_clock(storage: LocalStorage) -> None:
    write_holder(storage, machine="elsewhere", host="elsewhere", since="2999-01-01T00:00:00+00:00")
    assert 0.9 < seconds(lambda: held(take(storage, stale_seconds=1.0)).release()) < 4


def test_holder_elsewhere_whose_heart_beats_is_waited_for(storage: LocalStorage) -> None:
    write_holder(storage, machine="elsewhere", host="elsewhere")
    stop = threading.Event()

    def beat() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            storage.write(f"leases/{KEY}/1.beat", json.dumps({"at": number, "children": []}).encode())

    heart = threading.Thread(target=beat)
    heart.start()
    began = time.monotonic()
    assert take(storage, stale_seconds=0.8, done=lambda: time.monotonic() - began > 2.5) is None
    stop.set()
    heart.join()
    held(take(storage, stale_seconds=0.8)).release()


def test_process_of_this_number_on_a_machine_of_the_same_name_is_not_this_one(storage: LocalStorage) -> None:
    write_holder(storage, machine="another boot or another container", pid=2**22 + 1)
    began = time.monotonic()
    assert take(storage, done=lambda: time.monotonic() - began > 1.0) is None


def test_held_lease_beats(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = held(take(storage, stale_seconds=0.4))
    beats = set()
    deadline = time.monotonic() + 5
    while len(beats) < 3 and time.monotonic() < deadline:
        beats.add(storage.read(f"leases/{KEY}/1.beat"))
        time.sleep(0.05)
    assert len(beats) >= 3
    lease.release()
    last = storage.read(f"leases/{KEY}/1.beat")
    time.sleep(0.5)
    assert storage.read(f"leases/{KEY}/1.beat") == last


def test_of_many_waiters_one_follows_a_dead_holder(storage: LocalStorage) -> None:
    write_holder(storage, pid=2**22 + 1)
    leases: list[Lease | None] = []
    threads = [
        threading.Thread(target=lambda: leases.append(take(storage, done=lambda: bool(leases)))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [lease.generation for lease in leases if lease is not None] == [2]
    held(next(lease for lease in leases if lease is not None)).release()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b"null"])
def test_unreadable_lease_holds_nobody_up(storage: LocalStorage, text: bytes) -> None:
    storage.put_if_absent(f"leases/{KEY}/1.json", text)
    lease = held(take(storage))
    assert lease.generation == 2
    lease.release()


@pytest.mark.parametrize("text", [b"", b"{", b"[]"])
def test_unreadable_heartbeat_holds_nobody_up(storage: LocalStorage, text: bytes) -> None:
    write_holder(storage, pid=2**22 + 1)
    storage.write(f"leases/{KEY}/1.beat", text)
    held(take(storage)).release()


def test_release_that_could_not_be_written_is_told_and_blocks_nobody_here(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = held(take(storage))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(StoreError, match="the disk is full"):
            lease.release()
    held(take(storage)).release()


def test_threads_of_released_leases_end(storage: LocalStorage) -> None:
    before = threading.active_count()
    for _ in range(20):
        held(take(storage)).release()
    wait_for(lambda: threading.active_count() == before)


def test_start_of_a_process_tells_it_from_any_other() -> None:
    assert process_start(os.getpid()) == process_start(os.getpid())
    assert process_start(os.getpid()) != process_start(1)
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(zombie.pid) is None
    assert process_start(zombie.pid) is None
