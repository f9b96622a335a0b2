"""What starts the ranks of a finetuning: on this machine, over ssh by a hostfile, by torchrun, or in a Slurm job.

One machine is DeepSpeed's per-machine launcher, called directly. Over several, a `coordinator` beside the run waits
for one `node` process on each of them, which ssh, srun or a person's `tulu join` starts; each starts its own ranks,
with DeepSpeed's launcher or with torchrun, and tells the coordinator what becomes of them.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tulu_pipeline.errors import BadInput, MissingOnMachine
from tulu_pipeline.profile import Profile, count_gpus, has_gpu
from tulu_pipeline.settings import child_environment, slurm_allocation

DEFAULT_PORT = 29400  # torchrun's own
_WORKER = "tulu_pipeline.training.worker"
_COORDINATOR = "tulu_pipeline.training.launching.coordinator"
_NODE = "tulu_pipeline.training.launching.node"
_DEEPSPEED_LAUNCHER = "tulu_pipeline.training.launching.deepspeed_launcher"
_CODE = Path(__file__).resolve().parents[3]
# Of allocations and of free memory that glibc keeps for the next pass. It would give each large tensor back to the
# system, and a fifth of a pass on a CPU is spent on page faults.
_KEPT_BYTES = 1 << 30
_SLOTS = re.compile(r"(\S+)\s+slots=(\d+)(?:\s|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A line of a hostfile: a machine, and which of its devices to use."""

    name: str
    slots: tuple[int, ...]


def launch_command(job_file: Path, profile: Profile) -> list[str]:
    """The command that the run starts and follows; it ends when all ranks have.

    Raises:
        BadInput: the profile does not fit the machine.
    """
    if profile.launcher == "local":
        return deepspeed_command(job_file, devices(profile), index=0, nodes=1, address="127.0.0.1", port=None)
    return [sys.executable, "-u", "-m", _COORDINATOR, str(job_file)]


def check_launcher(profile: Profile) -> None:
    """Whether the profile's launcher can work here, before anything is started.

    Raises:
        BadInput: settings that contradict each other, too few GPUs or nodes, no job of Slurm.
        MissingOnMachine: no `ssh` or no `srun`.
    """
    where = f"profile `{profile.name}`"
    if profile.launcher == "local":
        if profile.nodes > 1:
            raise BadInput(
                f"{profile.nodes} nodes with the launcher `local`, which starts one",
                where,
                "write launcher = `hostfile`, `torchrun` or `slurm`, or nodes = 1",
            )
        devices(profile)
    elif profile.launcher == "hostfile":
        chosen_hosts(profile)
        _need("ssh", "install an ssh client")
    elif profile.launcher == "torchrun":
        rendezvous(profile)
    else:
        allocation = slurm_allocation()
        if allocation is None:
            raise BadInput(
                "the launcher `slurm` works inside a job of Slurm, and this is none",
                where,
                "sbatch deployments/slurm/tulu.sbatch …, or run it after `salloc`",
            )
        if allocation.nodes < profile.nodes:
            raise BadInput(
                f"the Slurm job has {allocation.nodes} nodes, {profile.nodes} are wanted",
                where,
                f"ask for them: --nodes={profile.nodes}",
            )
        _need("srun", "load the module that brings Slurm's commands")


def deepspeed_command(
    job_file: Path, device_ids: Sequence[str], *, index: int, nodes: int, address: str, port: int | None
) -> list[str]:
    """DeepSpeed's per-machine launcher for the ranks of one node.

    `deepspeed --num_gpus N` and `deepspeed --hostfile F` build this very command for each machine after they have
    imported everything once more; called directly, `CUDA_VISIBLE_DEVICES` is honored too.

    Args:
        job_file: what the ranks read.
        device_ids: of this node, one for each rank; every node has as many.
        index: the node's place.
        nodes: how many there are.
        address: of the first node.
        port: where its ranks wait for the others; None where they meet through a file.
    """
    machines = {
        f"node-{each}": list(device_ids) if each == index else list(range(len(device_ids))) for each in range(nodes)
    }
    encoded = base64.urlsafe_b64encode(json.dumps(machines).encode()).decode()
    command = [sys.executable, "-u", "-m", _DEEPSPEED_LAUNCHER, f"--world_info={encoded}"]
    command += [f"--node_rank={index}", f"--master_addr={address}"]
    if port is not None:
        command.append(f"--master_port={port}")
    return [*command, "--no_local_rank", "--module", _WORKER, str(job_file)]


def torchrun_command(
    job_file: Path, ranks: int, *, index: int, nodes: int, address: str, port: int, own_address: str
) -> list[str]:
    """`torchrun` for the ranks of one node, which meets the others' at a c10d rendezvous on the first.

    Args:
        job_file: what the ranks read; its name is the rendezvous' too.
        ranks: of each node.
        index: the node's place; 0 keeps the rendezvous.
        nodes: how many there are.
        address: of the first node.
        port: of the rendezvous there.
        own_address: of this node, where the others reach it whatever its host name resolves to.
    """
    return [
        *(sys.executable, "-u", "-m", "torch.distributed.run"),
        f"--nnodes={nodes}",
        f"--nproc-per-node={ranks}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={_endpoint(address, port)}",
        f"--rdzv-id={job_file.parent.name}",
        f"--rdzv-conf=is_host={int(index == 0)}",
        f"--local-addr={own_address}",
        "--max-restarts=0",  # what failed goes on from its saved state when the run is started again
        *("--module", _WORKER, str(job_file)),
    ]


def node_command(
    address: str, port: int, *, name: str = "", index: int | None = None, slurm: bool = False
) -> list[str]:
    """The process of one node, which asks for its task at that address.

    Args:
        address: where the run's coordinator listens.
        port: likewise.
        name: what the node is called in logs and errors; "" for its host name.
        index: its place among the nodes; None where all places are alike.
        slurm: `srun` starts it, and says both.
    """
    command = [sys.executable, "-u", "-m", _NODE, _endpoint(address, port)]
    command += ["--name", name] if name else []
    command += [] if index is None else ["--index", str(index)]
    return command + (["--slurm"] if slurm else [])


def ssh_command(host: str, command: Sequence[str], arguments: str) -> list[str]:
    """`command` on another machine, where Python and the code lie at the same paths."""
    python_path = ":".join(filter(None, [str(_CODE), child_environment().get("PYTHONPATH", "")]))
    remote = shlex.join(["exec", "env", f"PYTHONPATH={python_path}", *command])
    return ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", *shlex.split(arguments), host, remote]


def srun_command(nodes: int, command: Sequence[str], arguments: str) -> list[str]:
    """`command` as one task on each node of the Slurm job, with all that the job has there."""
    return [
        *("srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"),
        *("--overlap", "--cpu-bind=none", "--export=ALL"),  # inside an interactive step too, and on all its cores
        *shlex.split(arguments),
        *command,
    ]


def chosen_hosts(profile: Profile) -> list[Host]:
    """The machines of the hostfile that the profile takes, each with a device for each rank.

    Raises:
        BadInput: no such file or one that cannot be read, a filter that names what is not there, too little left.
    """
    path = Path(profile.hostfile)
    hosts = filter_hosts(read_hostfile(path), profile.include, profile.exclude, str(path))
    if len(hosts) < profile.nodes:
        raise BadInput(
            f"{len(hosts)} hosts are left, profile `{profile.name}` wants {profile.nodes} nodes",
            str(path),
            "name more hosts, or fewer `nodes` in the profile",
        )
    for host in hosts[: profile.nodes]:
        if len(host.slots) < profile.ranks:
            raise BadInput(
                f"`{host.name}` has {len(host.slots)} slots, profile `{profile.name}` wants {profile.ranks} ranks",
                str(path),
                "give it more slots, or the profile fewer `ranks`",
            )
    return [replace(host, slots=host.slots[: profile.ranks]) for host in hosts[: profile.nodes]]


def read_hostfile(path: Path) -> list[Host]:
    """The machines of a hostfile of DeepSpeed's (and MPI's) form: `name slots=8` in each line.

    Raises:
        BadInput: no such file, or a line that is none of these.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BadInput(
            f"the hostfile cannot be read: {error.strerror}", str(path), "name another: hostfile = …"
        ) from error
    hosts: dict[str, Host] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _SLOTS.match(text)
        if match is None:
            raise BadInput(f"`{text}` names no host and slots", f"{path}:{number}", "write `name slots=8`")
        name, slots = match[1], int(match[2])
        if name in hosts:
            raise BadInput(f"`{name}` is there twice", f"{path}:{number}", "write one line with all its slots")
        hosts[name] = Host(name=name, slots=tuple(range(slots)))
    if not hosts:
        raise BadInput("the hostfile names no host", str(path), "write a line `name slots=8` for each")
    return list(hosts.values())


def filter_hosts(hosts: Sequence[Host], include: str, exclude: str, where: str) -> list[Host]:
    """What is left of the hosts, in their order, by DeepSpeed's filters: `name@other:0,2`.

    Raises:
        BadInput: both filters, a host or a slot that is not there, or a host named twice.
    """
    if include and exclude:
        raise BadInput("include and exclude are both given", where, "keep one of the two")
    if not include and not exclude:
        return list(hosts)
    there = {host.name: host for host in hosts}
    named: dict[str, set[int]] = {}
    for part in (include or exclude).split("@"):
        name, colon, listed = part.strip().partition(":")
        if name not in there:
            raise BadInput(f"no host `{name}`", where, f"known: {', '.join(there)}")
        try:
            slots = {int(slot) for slot in listed.split(",")} if colon else set(there[name].slots)
        except ValueError:
            raise BadInput(f"`{part}` names no slots", where, f"write `{name}:0,2`") from None
        if unknown := slots - set(there[name].slots):
            raise BadInput(f"`{name}` has no slot {min(unknown)}", where, f"it has {len(there[name].slots)}")
        if name in named:
            raise BadInput(f"`{name}` is named twice", where, f"write all its slots at once: `{name}:0,2`")
        named[name] = slots
    kept = [
        replace(host, slots=tuple(slot for slot in host.slots if (slot in named.get(host.name, ())) == bool(include)))
        for host in hosts
    ]
    return [host for host in kept if host.slots]


def rendezvous(profile: Profile) -> tuple[str, int]:
    """(address that the profile names or "", port or 0 for a free one): where nodes reach the run.

    Raises:
        BadInput: `rendezvous` is no address and port.
    """
    text = profile.rendezvous or (f":{DEFAULT_PORT}" if profile.launcher == "torchrun" else ":0")
    return split_endpoint(text, f"profile `{profile.name}`")


def split_endpoint(text: str, where: str) -> tuple[str, int]:
    """`host:port`, `[address]:port` or `tcp://host:port` in two.

    Raises:
        BadInput: it is none of these.
    """
    match = re.fullmatch(r"(?:tcp://)?(?:\[([^]]+)\]|([^:]*)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise BadInput(f"`{text}` is no address and port", where, f"write host:port, such as node-0:{DEFAULT_PORT}")
    return match[1] or match[2], int(match[3])


def own_address(others: Sequence[str]) -> str:
    """The address under which the others reach this machine, by its routes; a loopback address if none does.

    Args:
        others: host names; empty for the way out of this machine.
    """
    loopback = "127.0.0.1"
    for host in others or ["192.0.2.1"]:  # RFC 5737; nothing is sent to connect a datagram socket
        try:
            family, kind, _, _, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(target)
                address = str(probe.getsockname()[0])
        except OSError:
            continue
        if not ipaddress.ip_address(address).is_loopback:
            return address
    return loopback


def devices(profile: Profile) -> list[str]:
    """The device of each rank of this machine: GPUs that may be seen here, or numbers where there is none.

    Raises:
        BadInput: fewer GPUs than ranks.
    """
    if has_gpu() and count_gpus() < profile.ranks:
        raise BadInput(
            f"profile `{profile.name}` wants {profile.ranks} ranks, {count_gpus()} GPUs are visible",
            "CUDA_VISIBLE_DEVICES",
            "give a profile with as many ranks as GPUs, or make more of them visible",
        )
    visible = child_environment().get("CUDA_VISIBLE_DEVICES", "")
    ids = [device.strip() for device in visible.split(",")] if has_gpu() and visible else map(str, range(profile.ranks))
    return list(ids)[: profile.ranks]


def rank_environment(profile: Profile, interface: str) -> dict[str, str]:
    """Variables of the ranks of this machine.

    Args:
        profile: its `network_interface` is every transport's.
        interface: what gloo takes where the profile names none; "" lets it resolve its own host name.
    """
    environment = {
        "OMP_NUM_THREADS": str(profile.threads_per_rank),
        "DS_ACCELERATOR": "cuda" if has_gpu() else "cpu",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not has_gpu():
        environment |= dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(_KEPT_BYTES))
    if profile.network_interface:
        return environment | dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), profile.network_interface)
    return environment | {"GLOO_SOCKET_IFNAME": interface} if interface else environment


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _need(program: str, fix: str) -> None:
    if shutil.which(program) is None:
        raise MissingOnMachine(f"`{program}` is not there", "PATH", fix)
