"""Beside the run: brings the nodes of a finetuning together, follows them, and ends them all when one fails.

Started as `python -m tulu_pipeline.training.launching.coordinator job.json`; what it prints is the run's log and its
events.
"""

from __future__ import annotations

import queue
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from tulu_pipeline.artifacts.child_side import emit, end_with_parent
from tulu_pipeline.artifacts.children import tail
from tulu_pipeline.errors import BadInput, StageFailed, TuluError
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import environment_for_nodes, slurm_allocation
from tulu_pipeline.training.job import TrainingJob
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
from tulu_pipeline.training.launching.exits import how_it_ended
from tulu_pipeline.training.launching.launchers import (
    chosen_hosts,
    node_command,
    own_address,
    rendezvous,
    srun_command,
    ssh_command,
)
from tulu_pipeline.training.launching.node import NODES_FOLDER, node_log, versions

_PAUSE_SECONDS = 0.2
_CAUSE_SECONDS = 4.0  # after a first failure: ranks that lost a neighbor speak up before it is known what became of it
_STOP_SECONDS = 20.0
_PROOF_SECONDS = 30.0  # what has connected and proves nothing for so long is a stranger
_LEAVE_SECONDS = 3.0
_ASKED_TO_END = (128 + signal.SIGTERM, 256 - signal.SIGTERM)  # codes of a launcher whose ranks were, by it or by us


_Cause = Literal["lost", "told", "missed", "ended", "asked"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Member:
    """A node that has connected."""

    channel: Channel
    since: float = field(default_factory=time.monotonic)
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    hello: Hello | None = None
    offer: Offer | None = None
    ended: bool = False
    gone: int | None = None  # a rank that the others on its machine no longer see

    @property
    def name(self) -> str:
        return self.hello.node if self.hello else self.channel.peer_address


@dataclass(slots=True, kw_only=True)
class _Starter:
    """A process that brings one node, or (srun) all of them."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return tail(self.log, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """What one node told, in the order in which it came.

    Attributes:
        cause: the node's connection ended (`lost`), a rank said what failed (`told`), the node's ranks ended after one
            was missed by its neighbors (`missed`), just ended (`ended`), or did because their launcher asked (`asked`).
        where, fix: of a rank that says so itself.
    """

    cause: _Cause
    node: str
    error: str
    rank: int | None = None
    where: str = ""
    fix: str = ""


# None as a member's message: its connection is gone; from nobody: this process was asked to end.
_Word = tuple[_Member | None, Message | None]


@dataclass(slots=True, kw_only=True)
class Coordinator:
    """One finetuning over several nodes.

    Args:
        job: what the ranks will read.
        job_file: where it lies for all of them.
    """

    job: TrainingJob
    job_file: Path
    _words: queue.SimpleQueue[_Word] = field(default_factory=queue.SimpleQueue)  # signal handlers may put into it
    _newcomers: list[_Member] = field(default_factory=list)  # have proved nothing yet
    _members: list[_Member] = field(default_factory=list)
    _all_there: threading.Event = field(default_factory=threading.Event)
    _starters: list[_Starter] = field(default_factory=list)
    _failures: list[_Failure] = field(default_factory=list)

    def run(self) -> int:
        """Bring the nodes together and follow them to their end; the exit code.

        Raises:
            TuluError: they did not come together.
        """
        profile = self.job.profile
        signal.signal(signal.SIGTERM, self._asked_to_end)
        shutil.rmtree(self.job.work / NODES_FOLDER, ignore_errors=True)
        (self.job.work / NODES_FOLDER).mkdir(parents=True)
        names = _node_names(profile)
        host, port = rendezvous(profile)
        address = host or own_address([name for name in names if name != socket.gethostname()])
        with _listen(host, address, port, profile) as listener:
            port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            self._starters = self._start_nodes(address, port)
            members = self._gather(names, address, port)
            self._all_there.set()
            listener.shutdown(socket.SHUT_RDWR)  # who comes now finds nobody, and may wait for the next finetuning
        if members is None:
            return 128 + signal.SIGTERM
        self._begin(members, address)
        return self._follow(members)

    def _asked_to_end(self, *_: object) -> None:
        self._words.put((None, None))

    def _start_nodes(self, address: str, port: int) -> list[_Starter]:
        profile = self.job.profile
        if profile.launcher == "hostfile":
            return [
                self._starter(
                    host.name,
                    ssh_command(
                        host.name, node_command(address, port, name=host.name, index=index), profile.launcher_arguments
                    ),
                )
                for index, host in enumerate(chosen_hosts(profile))
            ]
        if profile.launcher == "slurm":
            command = node_command(address, port, slurm=True)
            return [self._starter("srun", srun_command(profile.nodes, command, profile.launcher_arguments))]
        return [self._starter("here", node_command(address, port, name=socket.gethostname(), index=0))]

    def _starter(self, name: str, command: Sequence[str]) -> _Starter:
        log = self.job.work / NODES_FOLDER / f"start-{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        return _Starter(name=name, process=process, log=log)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                member = _Member(channel=Channel(listener.accept()[0]))
            except OSError:  # shut down; or whoever it was is gone already, or too many files are open
                if self._all_there.wait(_PAUSE_SECONDS):
                    return
                continue
            self._newcomers.append(member)
            threading.Thread(target=self._listen_to, args=(member,), daemon=True).start()

    def _listen_to(self, member: _Member) -> None:
        for message in member.channel.messages():
            self._words.put((member, message))
        self._words.put((member, None))

    def _gather(self, names: Sequence[str], address: str, port: int) -> list[_Member] | None:
        """The nodes, in their order; None when it shall end."""
        deadline = time.monotonic() + self.job.profile.node_wait_seconds
        told = -1
        while True:
            there = [member for member in self._members if member.offer]
            if len(there) == self.job.profile.nodes:
                for stranger in list(self._newcomers):
                    self._leave(stranger)
                self._members.sort(key=_order)
                return self._members
            if told != len(there):
                told = len(there)
                self._tell_who_is_waited_for(there, address, port)
            for stranger in list(self._newcomers):
                if time.monotonic() - stranger.since > _PROOF_SECONDS:
                    self._turn_away(stranger, f"it proved nothing for {_PROOF_SECONDS:.0f} s")
            if time.monotonic() > deadline:
                raise self._nobody_came(names, address, port)
            for starter in self._starters:
                if starter.process.poll() is not None:
                    raise StageFailed(
                        f"{starter.name}: the node ended with code {starter.process.returncode} before it joined: "
                        f"{starter.said() or 'it said nothing'}",
                        str(starter.log),
                        "the Python environment and the code must lie at the same paths on every node",
                    )
            try:
                member, message = self._words.get(timeout=_PAUSE_SECONDS)
            except queue.Empty:
                continue
            if member is None:
                return None
            if message is None:
                self._leave(member)
            elif member in self._newcomers:
                self._meet(member, message)
            elif member not in self._members:
                continue  # it was turned away before this came
            elif isinstance(message, Refused):
                raise StageFailed(message.what, member.name, message.fix)
            elif isinstance(message, Offer):
                self._take(member, message)

    def _leave(self, member: _Member) -> None:
        member.channel.close()
        for known in (self._newcomers, self._members):
            if member in known:
                known.remove(member)

    def _turn_away(self, stranger: _Member, reason: str) -> None:
        """What anybody who can connect may say ends no run; it is told in the log, where a node can be told from it."""
        sys.stderr.write(f"turned {stranger.channel.peer_address} away: {reason}\n")
        self._leave(stranger)

    def _meet(self, member: _Member, message: Message) -> None:
        """What somebody says who has proved nothing yet."""
        if isinstance(message, Hello) and member.hello is None:
            member.hello = message
            answer = proof(self.job.secret, "run", message.nonce)
            member.channel.send(Task(job_file=self.job_file, nonce=member.nonce, proof=answer))
        elif member.hello is None or not isinstance(message, Seen | Refused):
            self._turn_away(member, "it does not begin as a node does")
        elif isinstance(message, Refused):
            self._turn_away(member, f"it says {message.what[:300]!a}")
        elif not is_proof(message.proof, self.job.secret, "node", member.nonce):
            self._turn_away(member, "it has not read the job file")
        else:
            self._newcomers.remove(member)
            taken = {other.hello.index for other in self._members if other.hello} - {None}
            if len(self._members) >= self.job.profile.nodes or member.hello.index in taken:
                member.channel.close()  # one too many
            else:
                self._members.append(member)

    def _take(self, member: _Member, offer: Offer) -> None:
        wanted = self.job.profile
        for package, here in versions().items():
            there = offer.versions.get(package)
            if there != here:
                raise StageFailed(
                    f"{member.name} has {package} {there}, this machine {here}",
                    member.name,
                    "install the same releases",
                )
        others = [other.offer.gpus for other in self._members if other.offer]
        if 0 < offer.gpus < wanted.ranks or any(bool(gpus) != bool(offer.gpus) for gpus in others):
            raise StageFailed(
                f"{member.name} shows {offer.gpus} GPUs, profile `{wanted.name}` wants {wanted.ranks} ranks per node",
                member.name,
                "take nodes that are alike, or fewer `ranks`",
            )
        member.offer = offer

    def _tell_who_is_waited_for(self, there: Sequence[_Member], address: str, port: int) -> None:
        text = f"{len(there)} of {self.job.profile.nodes} nodes are there"
        if self.job.profile.launcher == "torchrun":
            text += f"; on each other node: tulu join {address}:{port}"
        emit({"event": "waiting", "text": text})

    def _nobody_came(self, names: Sequence[str], address: str, port: int) -> StageFailed:
        profile, there = self.job.profile, [member.name for member in self._members if member.offer]
        missing = [name for name in names if name not in there]
        who = ", ".join(missing) if missing else f"{profile.nodes - len(there)} of {profile.nodes} nodes"
        said = "".join(f"\n{starter.name}: {text}" for starter in self._starters if (text := starter.said()))
        fix = f"let them reach {address}:{port}, or name another `rendezvous`; more time is `node_wait_seconds`"
        if profile.launcher == "torchrun":
            fix = f"run `tulu join {address}:{port}` on each of them; more time is `node_wait_seconds`"
        return StageFailed(
            f"{who} did not join within {profile.node_wait_seconds:.0f} s; there: {', '.join(there) or 'none'}{said}",
            f"{address}:{port}",
            fix,
        )

    def _begin(self, members: Sequence[_Member], address: str) -> None:
        profile, first = self.job.profile, members[0]
        assert first.offer is not None
        reached_at = first.channel.peer_address
        if ip_address(reached_at).is_loopback:  # it is on this machine
            reached_at = address
        slots: list[tuple[str, ...]] = [()] * len(members)
        if profile.launcher == "hostfile":
            slots = [tuple(map(str, host.slots)) for host in chosen_hosts(profile)]
        device = f"{first.offer.gpus} GPUs each" if first.offer.gpus else "no GPU: ranks talk through gloo"
        emit({"event": "note", "text": f"nodes {', '.join(member.name for member in members)}; {device}"})
        for index, member in enumerate(members):
            member.channel.send(
                Start(
                    index=index,
                    nodes=len(members),
                    address=reached_at,
                    port=first.offer.port,
                    devices=slots[index],
                    environment=environment_for_nodes(),
                )
            )

    def _follow(self, members: Sequence[_Member]) -> int:
        give_up = stop_at = float("inf")
        while not all(member.ended for member in members) and time.monotonic() < give_up:
            try:
                speaker, message = self._words.get(timeout=_PAUSE_SECONDS)
            except queue.Empty:
                speaker = message = None
            else:
                if speaker is None:
                    self.job.stop_file.touch()  # the ranks save and end; who does not wait for them kills
                elif speaker in members:
                    self._hear(speaker, message)
                else:
                    self._leave(speaker)  # it came when all were there already
            if self._failures and stop_at == float("inf"):
                known = any(failure.cause == "lost" for failure in self._failures)
                stop_at = time.monotonic() + (0.0 if known else _CAUSE_SECONDS)
            if time.monotonic() >= stop_at and give_up == float("inf"):
                give_up = time.monotonic() + _STOP_SECONDS
                for member in members:
                    member.channel.send(Stop())
        for member in members:
            member.channel.close()
        _end([starter.process for starter in self._starters])
        if not self._failures:
            return 0
        root = _root_cause(self._failures)
        names = [member.name for member in members]
        log = node_log(self.job.work, names.index(root.node), root.node)
        where = root.where or str(log)
        fix = root.fix or (f"see the whole log: {log}" if root.where else "see the whole log there")
        told = {"error": root.error, "where": where, "fix": fix}
        emit({"event": "failed", "rank": root.rank, "node": root.node, **told})
        return 1

    def _hear(self, member: _Member, message: Message | None) -> None:
        if isinstance(message, Report):
            event: dict[str, Any] = message.event
            if event.get("event") == "gone":
                member.gone = event["rank"]
            elif event.get("event") == "failed":
                error, where, fix = (str(event.get(key, "")) for key in ("error", "where", "fix"))
                self._failures.append(
                    _Failure(cause="told", node=member.name, error=error, rank=event["rank"], where=where, fix=fix)
                )
            else:
                emit(event)
        elif isinstance(message, Ended):
            member.ended = True
            if message.failure:
                cause: _Cause = "ended" if member.gone is None else "missed"
                if message.code in _ASKED_TO_END:
                    cause = "asked"
                how = self._how_it_ended(member, message)
                self._failures.append(_Failure(cause=cause, node=member.name, error=how))
        elif message is None and not member.ended:
            member.ended = True
            self._failures.append(
                _Failure(cause="lost", node=member.name, error=f"the node {member.name} is gone: its connection ended")
            )

    def _how_it_ended(self, member: _Member, ended: Ended) -> str:
        profile, rank = self.job.profile, ended.rank if member.gone is None else member.gone
        if rank is None and profile.ranks == 1 and profile.launcher != "torchrun":  # which gives ranks in its own order
            rank = self._members.index(member)
        if rank is None or ended.code is None:
            return f"the ranks on {member.name} ended: {ended.failure}"
        return f"{how_it_ended(rank, ended.code)}; it was on {member.name}"


def main() -> None:
    """Run one finetuning's nodes; what went wrong is an event."""
    end_with_parent()
    job_file = Path(sys.argv[1])
    try:
        code = Coordinator(job=TrainingJob.model_validate_json(job_file.read_text()), job_file=job_file).run()
    except TuluError as error:
        told = {"error": error.what, "where": error.where, "fix": error.fix}
        emit({"event": "failed", "rank": None, "node": error.where, **told})
        code = 1
    sys.exit(code)


def _root_cause(failures: Sequence[_Failure]) -> _Failure:
    """A node that is gone; or one whose ranks ended without a word, which the others' words then follow from.

    Else what was told first.
    """
    told = {failure.node for failure in failures if failure.cause == "told"}
    known = [failure for failure in failures if failure.cause in ("lost", "told") or failure.node not in told]
    order: list[_Cause] = ["lost", "missed", "ended", "told", "asked"]
    return min(known, key=lambda failure: order.index(failure.cause))


def _node_names(profile: Profile) -> list[str]:
    """The names of the nodes, where they are known before they come."""
    if profile.launcher == "hostfile":
        return [host.name for host in chosen_hosts(profile)]
    allocation = slurm_allocation()
    if profile.launcher == "slurm" and allocation is not None and shutil.which("scontrol"):
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", allocation.node_list], capture_output=True, text=True, check=False
        )
        return listed.stdout.split()
    return []


def _listen(host: str, address: str, port: int, profile: Profile) -> socket.socket:
    """At the address that the profile names; on all interfaces where it names none.

    The own name of a machine is often a loopback address there, which the others do not reach: then on all too.
    """
    try:
        family, _, _, _, (found, *_) = socket.getaddrinfo(host or address, port, type=socket.SOCK_STREAM)[0]
        all_interfaces = not host or (host == socket.gethostname() and ip_address(found).is_loopback)
        return socket.create_server(("" if all_interfaces else found, port), family=family)
    except OSError as error:
        raise BadInput(
            f"port {port} cannot be listened at: {error.strerror}",
            f"profile `{profile.name}`",
            "name another `rendezvous`, or end what has it",
        ) from error


def _order(member: _Member) -> tuple[int, str]:
    assert member.hello is not None
    return (sys.maxsize if member.hello.index is None else member.hello.index, member.hello.node)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """They end by themselves, now that their nodes have; whatever does not is not waited for."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    main()
