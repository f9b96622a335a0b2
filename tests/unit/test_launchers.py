"""What starts the ranks: hostfiles as DeepSpeed reads them, commands that a shell takes, and who may take part."""

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import BadInput, StageFailed, Unreachable
from tulu_pipeline.profile import PROFILES, Profile, load_profile
from tulu_pipeline.settings import read_settings, shared_variables
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.launching import channel, coordinator
from tulu_pipeline.training.launching.channel import (
    Channel,
    Ended,
    Hello,
    Message,
    Offer,
    Refused,
    Report,
    Seen,
    Start,
    Stop,
    Task,
    is_proof,
    proof,
)
from tulu_pipeline.training.launching.coordinator import Coordinator, _listen
from tulu_pipeline.training.launching.launchers import (
    Host,
    check_launcher,
    chosen_hosts,
    filter_hosts,
    node_command,
    own_address,
    read_hostfile,
    rendezvous,
    split_endpoint,
    ssh_command,
)
from tulu_pipeline.training.launching.node import how_they_ended, join, versions

NODES = Profile(ranks=1, nodes=2, launcher="torchrun", rendezvous="127.0.0.1:0", node_wait_seconds=60.0)


# Profiles


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_profile_that_is_there_can_be_loaded(path: Path) -> None:
    profile = load_profile(path.stem)
    assert profile.name == path.stem
    assert (profile.nodes > 1) == (profile.launcher != "local")


def test_there_is_a_profile_for_each_way_to_launch() -> None:
    assert {load_profile(path.stem).launcher for path in PROFILES.glob("*.toml")} == {
        "local", "hostfile", "torchrun", "slurm",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        (Profile(nodes=2), "2 nodes with the launcher `local`"),
        (Profile(nodes=2, launcher="slurm"), "inside a job of Slurm"),
        (Profile(nodes=2, launcher="hostfile", hostfile="/nowhere"), "the hostfile cannot be read"),
        (Profile(nodes=2, launcher="torchrun", rendezvous="node-0"), "`node-0` is no address and port"),
    ],
)
def test_a_launcher_that_cannot_work_here_is_refused_before_anything_starts(
    profile: Profile, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(BadInput) as refused:
        check_launcher(profile)
    assert told in refused.value.what
    assert refused.value.fix


def test_a_slurm_job_with_too_few_nodes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    with pytest.raises(BadInput, match="the Slurm job has 2 nodes, 4 are wanted"):
        check_launcher(Profile(nodes=4, launcher="slurm"))


# Hostfiles


def test_a_hostfile_is_read_with_comments_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "hostfile"
    file.write_text("# the cluster\n\nnode-0 slots=2\nnode-1   slots=1 # half of it broken\n")
    assert read_hostfile(file) == [Host(name="node-0", slots=(0, 1)), Host(name="node-1", slots=(0,))]


@pytest.mark.parametrize(
    ("text", "told", "line"),
    [
        ("node-0 slots=2\nnode-1\n", "`node-1` names no host and slots", ":2"),
        ("node-0 slots=2\nnode-0 slots=2\n", "`node-0` is there twice", ":2"),
        ("# nothing\n", "the hostfile names no host", ""),
    ],
)
def test_a_mistake_in_a_hostfile_is_told_with_its_line(tmp_path: Path, text: str, told: str, line: str) -> None:
    file = tmp_path / "hostfile"
    file.write_text(text)
    with pytest.raises(BadInput) as mistake:
        read_hostfile(file)
    assert mistake.value.what == told
    assert mistake.value.where == f"{file}{line}"


def filters() -> st.SearchStrategy[str]:
    slots = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda found: ":" + ",".join(map(str, found)))
    part = st.tuples(st.sampled_from(["node-0", "node-1", "node-2"]), st.just("") | slots)
    parts = st.lists(part, min_size=1, max_size=3, unique_by=lambda found: found[0])
    return parts.map(lambda found: "@".join(map("".join, found)))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), filters(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_filters_leave_what_deepspeed_leaves(counts: list[int], text: str, included: bool) -> None:
    from deepspeed.launcher.runner import parse_inclusion_exclusion

    pool = {f"node-{index}": count for index, count in enumerate(counts)}
    include, exclude = (text, "") if included else ("", text)
    try:
        wanted = parse_inclusion_exclusion(pool, include, exclude)
    except (ValueError, KeyError):
        wanted = None
    hosts = [Host(name=name, slots=tuple(range(count))) for name, count in pool.items()]
    try:
        found = {host.name: list(host.slots) for host in filter_hosts(hosts, include, exclude, "")}
    except BadInput:
        found = None
    assert found == (None if wanted is None else dict(wanted))


def test_a_host_that_a_filter_names_twice_is_refused() -> None:
    # DeepSpeed takes `node-0@node-0:1` for the one slot.
    with pytest.raises(BadInput, match="`node-0` is named twice"):
        filter_hosts([Host(name="node-0", slots=(0, 1))], "node-0@node-0:1", "", "")


def test_a_host_with_too_few_slots_is_named(tmp_path: Path) -> None:
    file = tmp_path / "hostfile"
    file.write_text("node-0 slots=8\nnode-1 slots=4\n")
    with pytest.raises(BadInput, match="`node-1` has 4 slots"):
        chosen_hosts(Profile(ranks=8, nodes=2, launcher="hostfile", hostfile=str(file)))
    assert chosen_hosts(Profile(ranks=2, nodes=1, launcher="hostfile", hostfile=str(file), include="node-1:1,3")) == [
        Host(name="node-1", slots=(1, 3))
    ]


# Commands and addresses


def test_what_ssh_hands_to_a_shell_arrives_word_by_word() -> None:
    words = ["-c", "import sys, os; print(sys.argv[1:], 'PYTHONPATH' in os.environ)", "two words", "$HOME", "it's"]
    *_, host, remote = ssh_command("node-1", [sys.executable, *words], "-p 2222 -o 'LogLevel=ERROR'")
    assert host == "node-1"
    printed = subprocess.run(["sh", "-c", remote], capture_output=True, text=True, check=True).stdout
    assert printed == "['two words', '$HOME', \"it's\"] True\n"
    assert ssh_command("node-1", [], "-p 2222 -o 'LogLevel=ERROR'")[-6:-2] == ["-p", "2222", "-o", "LogLevel=ERROR"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("node-0:29400", ("node-0", 29400)),
        ("tcp://10.0.0.1:1", ("10.0.0.1", 1)),
        ("[fd00::1]:29400", ("fd00::1", 29400)),
        (":29400", ("", 29400)),
    ],
)
def test_an_endpoint_is_host_and_port(text: str, wanted: tuple[str, int]) -> None:
    assert split_endpoint(text, "") == wanted
    assert node_command(*wanted)[-1] == text.removeprefix("tcp://")


@pytest.mark.parametrize("text", ["node-0", "node-0:", "node-0:70000", "a b:c", "fd00::1:29400"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        split_endpoint(text, "")


def test_torchrun_has_a_port_that_can_be_told_beforehand() -> None:
    assert rendezvous(Profile(launcher="torchrun")) == ("", 29400)
    assert rendezvous(Profile(launcher="hostfile")) == ("", 0)


def test_the_own_address_is_one_of_this_machine() -> None:
    with socket.socket() as probe:
        probe.bind((own_address([]), 0))  # which the system refuses for any other
    assert own_address(["localhost"]) == "127.0.0.1"


# A node and the run


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        return here, listener.accept()[0]


def test_a_connection_that_falls_silent_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SILENCE_SECONDS", 0.3)
    here, there = connected()
    with there:
        assert list(Channel(here).messages()) == []


def test_a_connection_whose_other_side_only_beats_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(channel, "BEAT_SECONDS", 0.1)
    here, there = (Channel(end) for end in connected())
    threading.Timer(2.0, lambda: there.send(Stop())).start()
    assert next(here.messages()) == Stop()
    there.close()


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    for name in ("model", "out", "work"):
        (tmp_path / name).mkdir()
    return write_job(tmp_path, NODES)


def write_job(folder: Path, profile: Profile) -> Path:
    job = TrainingJob(
        recipe=Recipe(),
        profile=profile,
        tokens=(),
        model=folder / "model",
        out=folder / "out",
        work=folder / "work",
        deepspeed={},
        resume=None,
        stop_file=folder / "work" / "stop",
        rendezvous=folder / "work" / "rendezvous",
    )
    path = folder / "work" / "job.json"
    job.write(path)
    return path


def secret_of(job_file: Path) -> str:
    return TrainingJob.model_validate_json(job_file.read_text()).secret


class Run:
    """A coordinator at work, and its events."""

    def __init__(self, job_file: Path) -> None:
        command = [sys.executable, "-u", "-m", "tulu_pipeline.training.launching.coordinator", str(job_file)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def event(self, kind: str) -> dict[str, Any]:
        """The next one of that kind; the others before it are passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line.removeprefix(EVENT_PREFIX)) if line.startswith(EVENT_PREFIX) else {}
            if event.get("event") == kind:
                return dict(event)
        raise AssertionError(f"it ended without `{kind}`")

    def endpoint(self) -> tuple[str, int]:
        """What it tells the other nodes to join."""
        return split_endpoint(self.event("waiting")["text"].rpartition(" ")[2], "")


def hello(name: str, index: int | None = None) -> Hello:
    return Hello(node=name, index=index, nonce=f"of {name}")


def offer(**changes: Any) -> Offer:
    return Offer(**{"versions": versions(), "gpus": 0, "port": 20_000} | changes)


def prove(node: Channel, words: Iterator[Message], greeting: Hello) -> Path:
    """What a node does that reads the job file; returns where it was told that it lies."""
    node.send(greeting)
    task = next(words)
    assert isinstance(task, Task)
    secret = secret_of(task.job_file)
    assert is_proof(task.proof, secret, "run", greeting.nonce)
    node.send(Seen(proof=proof(secret, "node", task.nonce)))
    return task.job_file


def ssh_that_only_waits(folder: Path) -> Path:
    """A folder with an `ssh` that starts nothing: the test itself is the nodes."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "ssh"
    program.write_text('#!/bin/sh\nwhile [ ! -e "${0%/*}/over" ]; do sleep 0.1; done\n')
    program.chmod(0o755)
    return program.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect(run: Run) -> Channel:
    return Channel(socket.create_connection(run.endpoint()))


def test_nodes_that_never_come_are_an_error_that_says_who_is_there_and_how_to_join(job_file: Path) -> None:
    write_job(job_file.parents[1], replace(NODES, node_wait_seconds=3.0))
    with Run(job_file) as run:
        failed = run.event("failed")
    assert failed["error"].startswith(f"1 of 2 nodes did not join within 3 s; there: {socket.gethostname()}")
    assert "run `tulu join 127.0.0.1:" in failed["fix"]


def test_a_node_that_does_not_see_the_model_is_named(job_file: Path) -> None:
    with Run(job_file) as run:
        node = connect(run)
        assert prove(node, node.messages(), hello("second")) == job_file
        node.send(Refused(what="second does not see /models", fix="share it"))
        failed = run.event("failed")
    assert failed["error"] == "second does not see /models"
    assert (failed["node"], failed["fix"]) == ("second", "share it")


def test_a_node_with_another_release_is_named(job_file: Path) -> None:
    with Run(job_file) as run:
        node = connect(run)
        prove(node, node.messages(), hello("second"))
        node.send(offer(versions=versions() | {"torch": "2.0.1"}))
        failed = run.event("failed")
    assert failed["error"] == f"second has torch 2.0.1, this machine {versions()['torch']}"


def test_a_node_with_too_few_gpus_is_named(job_file: Path) -> None:
    write_job(job_file.parents[1], replace(NODES, ranks=8))
    with Run(job_file) as run:
        node = connect(run)
        prove(node, node.messages(), hello("second"))
        node.send(offer(gpus=4))
        assert run.event("failed")["error"].startswith("second shows 4 GPUs")


def test_strangers_and_nodes_that_leave_again_change_nothing(job_file: Path) -> None:
    write_job(job_file.parents[1], replace(NODES, nodes=3))
    with Run(job_file) as run:
        endpoint = run.endpoint()
        stranger = socket.create_connection(endpoint)
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1) == b"", "what it says is no message, so it is hung up on"
        gone = Channel(socket.create_connection(endpoint))
        prove(gone, gone.messages(), hello("gone"))
        gone.close()
        refuses = Channel(socket.create_connection(endpoint))
        refuses.send(hello("refuses"))
        words = refuses.messages()
        next(words)
        refuses.send(Refused(what="no", fix="none"))
        assert list(words) == []
        unproved = Channel(socket.create_connection(endpoint))
        unproved.send(hello("unproved"))
        words = unproved.messages()
        next(words)
        unproved.send(Seen(proof=proof("another secret", "node", "")))
        assert list(words) == []
        offers = Channel(socket.create_connection(endpoint))
        offers.send(offer(versions={}))
        assert list(offers.messages()) == []
        held = [Channel(socket.create_connection(endpoint)) for _ in range(3)]
        for index, silent in enumerate(held):
            silent.send(hello("silent", index))
        nodes = [Channel(socket.create_connection(endpoint)) for _ in range(2)]
        said = [node.messages() for node in nodes]
        for name, node, heard in zip(("second", "third"), nodes, said, strict=True):
            prove(node, heard, hello(name))
            node.send(offer())
        assert run.event("note")["text"].startswith(f"nodes {socket.gethostname()}, second, third;")
        starts = [next(heard) for heard in said]
        assert [start.index for start in starts if isinstance(start, Start)] == [1, 2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        # A rank that lost its neighbor speaks first; the node whose ranks ended without a word is why.
        (
            [
                (0, Report(event={"event": "failed", "rank": 0, "error": "Connection reset by peer"})),
                (0, Ended(failure="…", code=1)),
                (1, Ended(failure="…", code=256 - 9)),
            ],
            {"rank": None, "node": "b", "error": "rank 1 was killed by signal 9 (SIGKILL)"},
        ),
        (
            [
                (0, Report(event={"event": "gone", "rank": 1})),
                (0, Ended(failure="…", code=128 + 11, rank=0)),
                (1, Ended(failure="…", code=1)),
            ],
            {"rank": None, "node": "a", "error": "rank 1 was killed by signal 11 (SIGSEGV); it was on a"},
        ),
        # torchrun asks the ranks of its node to end when another node's have.
        (
            [
                (0, Ended(failure="…", code=128 + 15, rank=1)),
                (1, Ended(failure="…", code=128 + 9, rank=0)),
            ],
            {"rank": None, "node": "b", "error": "rank 0 was killed by signal 9 (SIGKILL)"},
        ),
        (
            [
                (1, Report(event={"event": "failed", "rank": 1, "error": "no", "where": "step 3", "fix": "mend it"})),
                (1, Ended(failure="…", code=1)),
                (0, Report(event={"event": "failed", "rank": 0, "error": "Connection reset by peer"})),
                (0, Ended(failure="…", code=1)),
            ],
            {"rank": 1, "node": "b", "error": "no", "where": "step 3", "fix": "mend it"},
        ),
        (
            [(0, Report(event={"event": "failed", "rank": 0, "error": "Connection reset by peer"})), (1, None)],
            {"rank": None, "node": "b", "error": "the node b is gone: its connection ended"},
        ),
    ],
    ids=["killed", "missed", "asked", "failed", "lost"],
)
def test_the_error_is_the_one_that_the_others_follow_from(
    words: list[tuple[int, Any]],
    told: dict[str, Any],
    tmp_path: Path,
    job_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(ssh_that_only_waits(tmp_path)), prepend=os.pathsep)
    (tmp_path / "hostfile").write_text("a slots=1\nb slots=1\n")
    port = free_port()
    profile = replace(NODES, launcher="hostfile", hostfile=str(tmp_path / "hostfile"), rendezvous=f"127.0.0.1:{port}")
    write_job(tmp_path, profile)
    with Run(job_file) as run:
        run.event("waiting")
        nodes = [Channel(socket.create_connection(("127.0.0.1", port))) for _ in range(2)]
        said = [node.messages() for node in nodes]
        for index, name in enumerate("ab"):
            prove(nodes[index], said[index], hello(name, index))
            nodes[index].send(offer())
        assert all(isinstance(next(each), Start) for each in said)
        (tmp_path / "bin" / "over").touch()
        for number, (index, word) in enumerate(words, 1):
            if word is None:
                nodes[index].close()
            else:
                nodes[index].send(word)
            if number < len(words):  # two connections have no order: wait until this word was heard
                nodes[index].send(Report(event={"event": "heard"}))
                run.event("heard")
        if words[-1][1] is None:
            assert next(said[0]) == Stop(), "who is left is told to end"
            nodes[0].send(Ended(failure="…", code=1))
        failed = run.event("failed")
    assert failed["error"].startswith(told["error"])
    assert (failed["rank"], failed["node"]) == (told["rank"], told["node"])
    log = tmp_path / "work" / "nodes" / f"{'ab'.index(told['node'])}-{told['node']}.log"
    assert failed["where"] == told.get("where", str(log))
    assert failed["fix"] == told.get("fix", "see the whole log there")


@contextmanager
def a_node() -> Iterator[tuple[subprocess.Popen[str], Channel, Iterator[Message]]]:
    """A node that joins this test; the connection to it, and what it says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = node_command("127.0.0.1", listener.getsockname()[1], name="second")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as node:
            run = Channel(listener.accept()[0])
            try:
                yield node, run, run.messages()
            finally:
                run.close()
                node.kill()


def test_a_node_says_what_it_does_not_see(tmp_path: Path) -> None:
    with a_node() as (node, run, said):
        greeting = next(said)
        assert isinstance(greeting, Hello)
        assert greeting.node == "second"
        run.send(Task(job_file=tmp_path / "job.json", nonce="n", proof=""))
        refused = next(said)
        assert isinstance(refused, Refused)
        assert refused.what == f"second does not see {tmp_path / 'job.json'}: No such file or directory"
        _, told = node.communicate(timeout=60)
        assert node.returncode == 1
        assert "put the store and the model on a disk that every node has" in told


def test_a_node_does_nothing_for_who_does_not_know_the_job(job_file: Path) -> None:
    with a_node() as (node, run, said):
        greeting = next(said)
        assert isinstance(greeting, Hello)
        # Only who knows the secret can answer, and not with what a node has answered.
        answer = proof(secret_of(job_file), "node", greeting.nonce)
        run.send(Task(job_file=job_file, nonce="n", proof=answer))
        refused = next(said)
        assert isinstance(refused, Refused)
        assert refused.what == f"second sees another {job_file} than the run"
        assert list(said) == []
        assert node.wait(timeout=60) == 1


def test_a_node_starts_nothing_before_it_knows_the_run(job_file: Path) -> None:
    with a_node() as (_, run, said):
        next(said)
        run.send(Start(index=0, nodes=1, address="127.0.0.1", port=1, devices=(), environment={}))
        assert list(said) == [], "it hangs up"
    assert not list((job_file.parent / "nodes").glob("*"))


def test_a_node_that_knows_the_run_offers_what_it_has(job_file: Path) -> None:
    with a_node() as (_, run, said):
        greeting = next(said)
        assert isinstance(greeting, Hello)
        secret = secret_of(job_file)
        run.send(Task(job_file=job_file, nonce="n", proof=proof(secret, "run", greeting.nonce)))
        assert next(said) == Seen(proof=proof(secret, "node", "n"))
        offered = next(said)
        assert isinstance(offered, Offer)
        assert offered.versions == versions()


def test_only_their_user_reads_job_files_and_each_has_its_own_secret(job_file: Path) -> None:
    first = secret_of(job_file)
    job_file.chmod(0o644)
    write_job(job_file.parents[1], NODES)
    assert job_file.stat().st_mode & 0o777 == 0o600
    assert len(first) == len(secret_of(job_file)) == 64
    assert first != secret_of(job_file)


def test_no_node_takes_from_another_where_code_is() -> None:
    given = {"NCCL_DEBUG": "INFO", "PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": "/nccl"}
    assert shared_variables(given | {"LD_PRELOAD": "/a.so", "PYTHONPATH": "/a", "HF_TOKEN": "t"}) == given


def test_a_named_rendezvous_is_listened_at_alone() -> None:
    with _listen("127.0.0.1", "127.0.0.1", 0, NODES) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    with _listen("", "127.0.0.1", 0, NODES) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    with pytest.raises(BadInput, match="cannot be listened at"), _listen("192.0.2.1", "", 0, NODES):
        pass


def test_who_proves_nothing_is_hung_up_on_and_the_next_one_is_heard(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "_PROOF_SECONDS", 0.5)
    run = Coordinator(job=TrainingJob.model_validate_json(job_file.read_text()), job_file=job_file)
    listener = FailsFirst("127.0.0.1")
    with listener:
        threading.Thread(target=run._accept, args=(listener,), daemon=True).start()
        silent = Channel(socket.create_connection(listener.getsockname()))
        threading.Thread(target=run._gather, args=([], "", 0), daemon=True).start()
        assert list(silent.messages()) == []
        run._words.put((None, None))
        run._all_there.set()


ASKED_AT_ANY_MOMENT = """
import signal, sys, time
from pathlib import Path
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.launching.coordinator import Coordinator
run = Coordinator(job=TrainingJob.model_validate_json(Path(sys.argv[1]).read_text()), job_file=Path(sys.argv[1]))
signal.signal(signal.SIGALRM, run._asked_to_end)
signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
until = time.monotonic() + 2
while time.monotonic() < until:
    run._words.put((None, None))
    run._words.get(timeout=0.01)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_whoever_asks_a_coordinator_to_end_may_do_so_at_any_moment_of_what_it_does(job_file: Path) -> None:
    """Its own words lie in a queue, into which the handler of the signal puts one more."""
    done = subprocess.run([sys.executable, "-c", ASKED_AT_ANY_MOMENT, str(job_file)], timeout=45)
    assert done.returncode == 0


class FailsFirst(socket.socket):
    """A listener that once cannot accept, as with too many open files."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.bind((address, 0))
        self.listen()
        self._failed = False

    def accept(self) -> tuple[socket.socket, Any]:
        if not self._failed:
            self._failed = True
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


def test_where_the_other_side_was_is_known_when_it_is_gone() -> None:
    here, there = connected()
    end = Channel(here)
    there.close()
    end.close()
    assert end.peer_address == end.own_address == "127.0.0.1"


def test_torchrun_says_which_rank_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text("import os, time\nos.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else time.sleep(60)\n")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    with pytest.raises(StageFailed) as failed:
        run_child(torchrun, ctx=RunContext(profile=NODES, settings=read_settings()), log=tmp_path / "log")
    ended = how_they_ended(failed.value)
    assert (ended.rank, ended.code) == (1, 128 + 9)


def test_a_host_that_cannot_be_logged_in_to_is_named_at_once(tmp_path: Path, job_file: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("`ssh` is not installed (openssh-client)")
    (tmp_path / "hostfile").write_text("localhost slots=1\n")
    closed = f"-p {free_port()}"
    write_job(
        tmp_path,
        replace(NODES, nodes=1, launcher="hostfile", hostfile=str(tmp_path / "hostfile"), launcher_arguments=closed),
    )
    with Run(job_file) as run:
        failed = run.event("failed")
    assert failed["error"].startswith("localhost: the node ended with code 255 before it joined: ssh: connect to host")


def test_who_joins_where_nothing_is_gives_up_after_the_wait() -> None:
    with pytest.raises(Unreachable, match="no finetuning for 0 s"):
        join("127.0.0.1", free_port(), name="second", wait_seconds=0.0)
