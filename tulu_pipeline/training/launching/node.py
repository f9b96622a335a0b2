"""One node of a finetuning over several: `python -m tulu_pipeline.training.launching.node HOST:PORT`.

It asks the run's coordinator for its task. Once that has proved that it knows what is in the job file, this process
starts the ranks of its machine and tells what they say. The connection is its life line: when the run is gone, so is
this process, and with it, at once, the ranks.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import secrets
import signal
import socket
import struct
import sys
import threading
import time
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path

from pydantic import ValidationError

from tulu_pipeline.artifacts.children import end_all_children, run_child, supervised
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed, TuluError, Unreachable
from tulu_pipeline.profile import count_gpus
from tulu_pipeline.settings import child_environment, read_settings, shared_variables, slurm_allocation
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.launching.channel import (
    Channel,
    Ended,
    Hello,
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
from tulu_pipeline.training.launching.launchers import (
    deepspeed_command,
    devices,
    node_command,
    rank_environment,
    split_endpoint,
    torchrun_command,
)

log = logging.getLogger(__name__)

NODES_FOLDER = "nodes"  # in the work folder: what each node's ranks print
_SHARE = "put the store and the model on a disk that every node has at the same path"
_PACKAGES = ("torch", "deepspeed", "transformers")
_NOBODY, _RUN_ENDED = 75, 76  # exit codes
_CONNECT_SECONDS = 10.0
_RETRY_SECONDS = 1.0
# Below the ports that Linux gives to outgoing connections, so that none of them can take one in between.
_FIRST_PORT, _LAST_PORT = 20_000, 31_999
_SIOCGIFADDR = 0x8915
_TORCHRUN_ROOT = re.compile(r"Root Cause.*?\brank\s*: (\d+).*?\bexitcode\s*: (-?\d+)", re.DOTALL)


def join(address: str, port: int, *, name: str, wait_seconds: float) -> None:
    """Take part in one finetuning after the other of the run at that address, until there is none for so long.

    Raises:
        StageFailed: this node cannot take part.
        Unreachable: no run was there.
    """
    log.info("waiting for a finetuning at %s:%d", address, port)
    since, took_part = time.monotonic(), False
    while True:
        command = node_command(address, port, name=name)
        code = _NOBODY
        if _is_there(address, port):
            with supervised(command, stdout=sys.stderr.buffer, stderr=sys.stderr.buffer) as process:
                code = process.wait()
        if code in (0, _RUN_ENDED):
            since, took_part = time.monotonic(), True
        elif code != _NOBODY:
            raise StageFailed("this node could not take part", f"{address}:{port}", "see above")
        elif time.monotonic() - since > wait_seconds:
            if took_part:
                return
            raise Unreachable(
                f"no finetuning for {wait_seconds:.0f} s", f"{address}:{port}", "start `tulu run` on the first node"
            )
        time.sleep(_RETRY_SECONDS)


def _is_there(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=_CONNECT_SECONDS):
        return True
    return False


def versions() -> dict[str, str]:
    """The releases that all nodes must have."""
    return {package: version(package) for package in _PACKAGES}


def node_log(work: Path, index: int, name: str) -> Path:
    """What the ranks of a node print."""
    return work / NODES_FOLDER / f"{index}-{name}.log"


def how_they_ended(error: TuluError) -> Ended:
    """How a node's ranks ended: from the code of their launcher, or torchrun's last words, as its code is always 1."""
    told = _TORCHRUN_ROOT.search(error.what)
    if told is None:
        return Ended(failure=error.what, code=getattr(error.__cause__, "returncode", None))
    code = int(told[2])
    return Ended(failure=error.what, rank=int(told[1]), code=128 - code if code < 0 else code)


def main() -> None:
    """Take part in one finetuning."""
    parser = argparse.ArgumentParser()
    parser.add_argument("endpoint")
    parser.add_argument("--name", default="")
    parser.add_argument("--index", type=int)
    parser.add_argument("--slurm", action="store_true")  # name and index are those of this task of srun
    arguments = parser.parse_args()
    address, port = split_endpoint(arguments.endpoint, "node")
    index, name = arguments.index, arguments.name or socket.gethostname()
    slurm = slurm_allocation() if arguments.slurm else None
    if slurm is not None:
        index, name = slurm.task, slurm.node or name
    try:
        channel = Channel(socket.create_connection((address, port), timeout=_CONNECT_SECONDS))
    except OSError as error:
        sys.stderr.write(f"{name} cannot reach the run at {arguments.endpoint}: {error}\n" * (index is not None))
        sys.exit(_NOBODY)
    sys.exit(_Node(channel, name, index).serve())


class _Node:
    def __init__(self, channel: Channel, name: str, index: int | None) -> None:
        self._channel, self._name, self._index = channel, name, index
        self._nonce = secrets.token_hex(16)
        self._job_file = Path()
        self._job: TrainingJob | None = None  # of a run that has proved that it is its own
        self._running: threading.Thread | None = None

    def serve(self) -> int:
        """Answer the coordinator until it has ended; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ask_to_stop())
        self._channel.send(Hello(node=self._name, index=self._index, nonce=self._nonce))
        for message in self._channel.messages():
            if isinstance(message, Task) and self._job is None:
                try:
                    self._take(message)
                except TuluError as error:
                    sys.stderr.write(f"{error}\n")
                    self._channel.send(Refused(what=error.what, fix=error.fix))
                    return 1
            elif self._job is None:
                break
            elif isinstance(message, Start):
                self._running = threading.Thread(target=self._run, args=(self._job, message), daemon=True)
                self._running.start()
            elif isinstance(message, Stop):
                self._stop()
        # The run has ended, or is cut off: what still runs here ends with this process, without a grace.
        os._exit(0 if self._running is not None and not self._running.is_alive() else _RUN_ENDED)

    def _take(self, task: Task) -> None:
        try:
            owner = task.job_file.stat().st_uid
            text = task.job_file.read_bytes() if task.job_file.is_file() else b""
        except OSError as error:
            raise StageFailed(
                f"{self._name} does not see {task.job_file}: {error.strerror}",
                self._name,
                _SHARE,
            ) from error
        if owner not in (os.getuid(), 0):
            raise StageFailed(f"{task.job_file} is another user's", self._name, "run as the same user on every node")
        try:
            job: TrainingJob | None = TrainingJob.model_validate_json(text)
        except ValidationError:
            job = None
        if job is None or not is_proof(task.proof, job.secret, "run", self._nonce):
            raise StageFailed(f"{self._name} sees another {task.job_file} than the run", self._name, _SHARE)
        self._channel.send(Seen(proof=proof(job.secret, "node", task.nonce)))
        for path in (job.model, *(folder for folder, _ in job.tokens), job.work, job.out):
            if not path.exists():
                raise StageFailed(f"{self._name} does not see {path}", self._name, _SHARE)
        self._job_file, self._job = task.job_file, job
        sys.stderr.write(f"{self._name}: taking part in {job.work}\n")
        self._channel.send(Offer(versions=versions(), gpus=count_gpus(), port=_free_port()))

    def _run(self, job: TrainingJob, start: Start) -> None:
        profile, own = job.profile, self._channel.own_address
        ended = Ended(failure="", code=None)
        try:
            if profile.launcher == "torchrun":
                command = torchrun_command(
                    self._job_file,
                    profile.ranks,
                    index=start.index,
                    nodes=start.nodes,
                    address=start.address,
                    port=start.port,
                    own_address=own,
                )
            else:
                command = deepspeed_command(
                    self._job_file,
                    start.devices or devices(profile),
                    index=start.index,
                    nodes=start.nodes,
                    address=start.address,
                    port=start.port,
                )
            run_child(
                command,
                ctx=RunContext(profile=profile, settings=read_settings()),
                log=node_log(job.work, start.index, self._name),
                env=shared_variables(start.environment)
                | rank_environment(profile, _interface_of(own))
                | {"PATH": _path()},
                on_event=lambda event: self._channel.send(Report(event=event)),
            )
        except TuluError as error:
            ended = how_they_ended(error)
        self._channel.send(ended)

    def _ask_to_stop(self) -> None:
        """The batch system is about to take this machine: all ranks, on every node, save and end."""
        if self._running is None or self._job is None:
            os._exit(_RUN_ENDED)
        self._job.stop_file.touch()

    def _stop(self) -> None:
        """End the ranks with a grace; the coordinator is told of their end."""
        if self._running is None:
            os._exit(_RUN_ENDED)
        end_all_children()


def _path() -> str:
    """Where programs are looked for: beside this Python first, which a login by ssh knows nothing of."""
    return f"{Path(sys.executable).parent}:{child_environment().get('PATH', '')}"


def _free_port() -> int:
    ports = list(range(_FIRST_PORT, _LAST_PORT + 1))
    random.Random(os.urandom(8)).shuffle(ports)
    for port in ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise StageFailed(f"no port from {_FIRST_PORT} to {_LAST_PORT} is free", socket.gethostname())


def _interface_of(address: str) -> str:
    """The network interface that has the address; "" where that cannot be told."""
    import fcntl

    if ip_address(address).is_loopback:
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return ""


if __name__ == "__main__":
    main()
