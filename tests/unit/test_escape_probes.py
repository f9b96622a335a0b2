"""No attempt to escape succeeds in any tier of this machine; and each would, where nothing stops it."""

import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tulu_pipeline.sandbox.probes import PROBES, probe
from tulu_pipeline.sandbox.program import Tier
from tulu_pipeline.sandbox.tiers import SAFE, what_refuses

TIERS: tuple[Tier, ...] = ("namespaces", "bubblewrap", "none")
# What harms or ends whoever makes the attempt, takes privileges that a test has not, or takes its time by its nature.
NOT_TRIED = {
    "fork_bomb", "thread_bomb", "memory_bomb", "many_blocks", "fill_disk", "large_file", "write_library", "kill_run",
    "kill_parent", "kill_all", "signal_by_thread", "endless_output", "sleep", "stays", "mount", "devices", "bpf",
    "io_uring", "set_user", "raise_limits", "read_system", "descriptors", "ptrace", "read_memory", "key_ring",
    "user_namespace", "cloned_namespace", "other_calls",
}  # fmt: skip


@pytest.mark.parametrize("tier", TIERS)
def test_every_attempt_is_blocked(tier: Tier) -> None:
    if reason := what_refuses(tier):
        pytest.skip(f"no tier `{tier}` on this machine: {reason}")
    found = list(probe(tier))
    assert [(each.name, each.detail) for each in found if not each.blocked] == []
    expected = {each.name for each in PROBES if tier in SAFE or not each.outside_only} | {"aftermath"}
    assert {each.name for each in found} == expected


@pytest.fixture
def server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("name", [each.name for each in PROBES if each.name not in NOT_TRIED])
def test_an_attempt_that_nothing_stops_succeeds(name: str, tmp_path: Path, server: int) -> None:
    (attempt,) = (each for each in PROBES if each.name == name)
    (tmp_path / "secret").write_text("secret")
    head = f"SECRET, TARGET, RUN_PID = {str(tmp_path / 'secret')!r}, {str(tmp_path)!r}, {os.getpid()}\n"
    head += f"HOST, PORT = '127.0.0.1', {server}\n"
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-I", "-c", head + attempt.source]
    done = subprocess.run(command, cwd=work, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_most_that_is_attempted_is_named() -> None:
    asked = {"network", "read_file", "write_file", "fork_bomb", "memory_bomb", "ptrace", "user_namespace"}
    asked |= {"kill_parent", "descriptors", "symbolic_link", "proc", "endless_output", "sleep"}
    assert asked <= {each.name for each in PROBES}
    assert len({each.name for each in PROBES}) == len(PROBES)


def test_programs_run_from_a_thread_with_many_open_files_see_none_of_them(tmp_path: Path) -> None:
    tier: Tier = "namespaces"
    if reason := what_refuses(tier):
        pytest.skip(f"no tier `{tier}` on this machine: {reason}")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [open(tmp_path / str(number), "w") for number in range(min(300, soft - 100))]  # noqa: SIM115
    for file in files:
        os.set_inheritable(file.fileno(), True)
    found: list[bool] = []
    try:
        thread = threading.Thread(
            target=lambda: found.extend(each.blocked for each in probe(tier, names=["descriptors"]))
        )
        thread.start()
        thread.join()
    finally:
        for file in files:
            file.close()
    assert found == [True, True], "the attempt, and what is left after it"
