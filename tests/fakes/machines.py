"""Machines of their own on this one: network namespaces joined by a cable, ssh into each, and a cluster of Slurm.

The programs are the real ones. What each needs is asked for by `missing_…`, which is why a test is then skipped.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes.waiting import wait_for

SBIN = "/usr/sbin"
ADDRESSES = ("10.77.0.1", "10.77.0.2")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoMachines:
    """Two network namespaces: they share the disk, and see each other at `ADDRESSES` only."""

    names: tuple[str, str]

    def on(self, machine: int) -> list[str]:
        """What to write before a command to run it there."""
        return ["ip", "netns", "exec", self.names[machine]]

    def pids(self, machine: int) -> list[int]:
        """Processes there."""
        found = subprocess.run(["ip", "netns", "pids", self.names[machine]], capture_output=True, text=True, check=True)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self, machine: int, *, but: Sequence[int] = ()) -> None:
        """End everything there at once, as a power cut would; the kernel still says that connections ended."""
        for pid in set(self.pids(machine)) - set(but):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def missing_for_two_machines() -> str:
    """Why there can be no network namespaces here; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "`ip` is not installed (iproute2)"
    name = f"tulu-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this kernel or container allows no network namespaces"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


@contextlib.contextmanager
def two_machines() -> Iterator[TwoMachines]:
    """Two of them, gone with all their processes at the end."""
    names = tuple(f"tulu-{os.getpid()}-{letter}" for letter in "ab")
    cables = ("tulu-va", "tulu-vb")
    machines = TwoMachines(names=(names[0], names[1]))
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name", cables[1], "netns", names[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            for device in ("lo", cable):
                _ip("-n", name, "link", "set", device, "up")
        yield machines
    finally:
        for machine, name in enumerate(names):
            with contextlib.suppress(subprocess.CalledProcessError):
                machines.kill(machine)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def missing_for_ssh() -> str:
    """Why nobody can log in here by ssh; "" if somebody can."""
    for program, package in (("ssh", "openssh-client"), ("ssh-keygen", "openssh-client"), ("sshd", "openssh-server")):
        if _program(program) is None:
            return f"`{program}` is not installed ({package})"
    return ""


@contextlib.contextmanager
def ssh_servers(machines: TwoMachines, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """A server on each machine: (words for `ssh` that let us in, the servers' process ids)."""
    folder.mkdir()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    (folder / "sshd_config").write_text(
        f"Port 2222\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
    )
    (folder / "ssh_config").write_text(
        f"Port 2222\nIdentityFile {folder}/user\nIdentitiesOnly yes\nStrictHostKeyChecking no\n"
        "UserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where the server locks itself in
    command = [str(_program("sshd")), "-D", "-e", "-f", str(folder / "sshd_config")]
    with open(folder / "sshd.log", "ab") as log:
        servers = [subprocess.Popen([*machines.on(machine), *command], stdout=log, stderr=log) for machine in (0, 1)]
    try:
        for address in ADDRESSES:
            _until(lambda address=address: _logs_in(machines, address, folder), folder / "sshd.log")  # type: ignore[misc]
        yield f"-F {folder}/ssh_config", [server.pid for server in servers]
    finally:
        for server in servers:
            server.kill()
            server.wait()


def missing_for_slurm() -> str:
    """Why there can be no cluster of Slurm here; "" if there can."""
    if os.geteuid() != 0:
        return "a cluster of Slurm needs root"
    for program, package in (
        ("slurmctld", "slurmctld"),
        ("slurmd", "slurmd"),
        ("srun", "slurm-client"),
        ("munged", "munge"),
    ):
        if _program(program) is None:
            return f"`{program}` is not installed ({package})"
    return ""


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[str]:
    """Two nodes, `node-a` and `node-b`, on this machine: the value of `SLURM_CONF`."""
    for name in ("state", "run"):
        (folder / name).mkdir(parents=True)
    key, socket_path, config = folder / "munge.key", folder / "run" / "munge", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    ports = _free_ports(3)
    config.write_text(
        f"""ClusterName=tulu
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={getpass.getuser()}
SlurmdUser={getpass.getuser()}
AuthType=auth/munge
AuthInfo=socket={socket_path}
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=5
MpiDefault=none
NodeName=node-a NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=node-b NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=node-a,node-b Default=YES MaxTime=INFINITE State=UP
"""
    )
    environment = os.environ | {"SLURM_CONF": str(config)}
    munge = [f"--socket={socket_path}", f"--key-file={key}", f"--pid-file={folder}/run/munged.pid"]
    munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/run/munge.seed", "--force", "--foreground"]
    daemons = [
        ["munged", *munge],
        ["slurmctld", "-D", "-i"],
        *(["slurmd", "-D", "-N", f"node-{letter}"] for letter in "ab"),
    ]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with open(folder / "daemons.log", "ab") as log:
            for name, *arguments in daemons:
                command = [str(_program(name)), *arguments]
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
                if name == "munged":
                    _until(socket_path.exists, folder / "munged.log")
        _until(lambda: _idle_nodes(environment) == 2, folder / "slurmctld.log")
        yield str(config)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=SBIN)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _logs_in(machines: TwoMachines, address: str, folder: Path) -> bool:
    command = [*machines.on(0), "ssh", "-F", str(folder / "ssh_config"), "-o", "BatchMode=yes", address, "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _idle_nodes(environment: dict[str, str]) -> int:
    found = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--states=idle"], env=environment, capture_output=True, text=True, check=False
    )
    return len(found.stdout.splitlines()) if found.returncode == 0 else 0


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _until(ready: Callable[[], bool], log: Path) -> None:
    wait_for(ready, said=lambda: log.read_text() if log.exists() else log)
