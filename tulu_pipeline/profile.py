"""The machine a run happens on: how fast and how wide, never what. Nothing here enters a key."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tulu_pipeline.errors import BadInput, unknown_name
from tulu_pipeline.settings import visible_gpus

# Of this checkout, whatever the working folder is.
PROFILES = Path(__file__).resolve().parents[1] / "deployments" / "profiles"

Slot = Literal["cpu", "gpu", "api"]
Layout = Literal["step", "padded"]
Kernels = Literal["auto", "head", "attention", "torch"]
Transport = Literal["requests", "batches"]
Launcher = Literal["local", "hostfile", "torchrun", "slurm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Execution settings; a run with another profile gives artifacts of the same keys.

    Attributes:
        ranks: processes of one finetuning job (one per GPU; 2 gloo ranks on a CPU).
        zero_stage: DeepSpeed ZeRO stage, 0 to 3.
        offload: keep optimizer state, and under ZeRO-3 the parameters, in CPU memory.
        gradient_checkpointing: compute activations twice instead of keeping them.
        kernels: `auto` takes what the machine and the model can: fused attention, the loss at the output head, and
            Liger's layers. `head` takes the first two, `attention` the first, `torch` none.
        layout: how a rank lays a step's conversations out in forward passes. `step`: end to end in rows without
            padding, and none sees another. `padded`: neighbors in the order under each other, padded to the longest,
            as the original did; for models in which the conversations of a row would see each other.
        micro_batch_conversations: conversations per rank and forward pass of the layout `padded`.
        row_tokens: tokens per rank and forward pass of the layout `step`, or what the longest conversation may have
            if that is more; 0 is `micro_batch_conversations` of the longest.
        checkpoint_every_steps: resumable trainer state is saved this often, and after the last step; 0 never.
        checkpoint_every_minutes: and so long after the last time; 0 never.
        checkpoints_kept: saved states kept at most, the newest.
        stop_seconds: a run that is asked to end (SIGTERM) waits so long for trainings to finish their step and save.
        nodes: machines of one finetuning, each with `ranks` processes.
        launcher: what starts them: this machine's own (`local`), DeepSpeed over ssh (`hostfile`), a rendezvous that
            every machine joins by itself (`torchrun`), or the batch system (`slurm`). Over several, the store lies on
            a disk that all of them see at the same path.
        hostfile: of the launcher `hostfile`: a file with a line `name slots=8` for each machine.
        include: machines and slots of the hostfile to use, `node-0@node-1:0,2`; empty for all.
        exclude: or those not to use.
        rendezvous: `host:port` at which the nodes reach this run. Without a host: its address on the way to them;
            empty: any free port too (of `torchrun`: 29400).
        node_wait_seconds: a finetuning fails when its nodes have not come after so long.
        network_interface: what ranks of several nodes talk through; empty for the one of the node's address.
        launcher_arguments: more words for `ssh` or `srun`.
        threads_per_rank: OpenMP threads of each rank.
        engine_cache_gib: key-value cache of the generation engine on a CPU.
        gpu_memory_share: share of GPU memory the generation engine may take.
        gpu: what its GPUs are called, such as `NVIDIA H100 80GB HBM3`, and `gpu_memory_gib` what each has: for
            estimates on a machine that has none.
        cpu_slots: stages that may run side by side on the CPU, and processes that tokenizing one large mixture may
            take; likewise api_slots.
        gpu_slots: 1 where there are GPUs. A finetuning and an engine take the first `ranks` of those that are visible,
            so two at a time would meet on the same.
        api_transport: how paid servers are asked: one request after the other, or `batches`: cheaper, within a day.
        lease_stale_seconds: a silent holder on another host is taken over after this long.
    """

    name: str = "auto"
    ranks: int = 1
    zero_stage: int = 2
    offload: bool = False
    gradient_checkpointing: bool = False
    kernels: Kernels = "auto"
    layout: Layout = "step"
    micro_batch_conversations: int = 4
    row_tokens: int = 0
    checkpoint_every_steps: int = 200
    checkpoint_every_minutes: float = 0.0
    checkpoints_kept: int = 1
    stop_seconds: float = 120.0
    nodes: int = 1
    launcher: Launcher = "local"
    hostfile: str = "/job/hostfile"
    include: str = ""
    exclude: str = ""
    rendezvous: str = ""
    node_wait_seconds: float = 600.0
    network_interface: str = ""
    launcher_arguments: str = ""
    threads_per_rank: int = 1
    engine_cache_gib: int = 1
    gpu_memory_share: float = 0.9
    gpu: str = ""
    gpu_memory_gib: float = 0.0
    cpu_slots: int = 2
    gpu_slots: int = 0
    api_slots: int = 8
    api_transport: Transport = "requests"
    lease_stale_seconds: float = 60.0

    def slots(self) -> dict[Slot, int]:
        """Stages that may run side by side, by what they need; a GPU stage takes the CPU where there is no GPU."""
        return {"cpu": max(1, self.cpu_slots), "gpu": max(1, self.gpu_slots), "api": max(1, self.api_slots)}


# Values of a field, where they are few; lowest and highest, where there are such.
_CHOICES: dict[str, tuple[str, ...]] = {
    "layout": get_args(Layout),
    "kernels": get_args(Kernels),
    "launcher": get_args(Launcher),
    "api_transport": get_args(Transport),
}
_RANGES: dict[str, tuple[float, float | None]] = {
    "ranks": (1, None),
    "zero_stage": (0, 3),
    "micro_batch_conversations": (1, None),
    "row_tokens": (0, None),
    "checkpoint_every_steps": (0, None),
    "checkpoint_every_minutes": (0.0, None),
    "checkpoints_kept": (1, None),
    "stop_seconds": (0.0, None),
    "nodes": (1, None),
    "node_wait_seconds": (1.0, None),
    "threads_per_rank": (1, None),
    "engine_cache_gib": (1, None),
    "gpu_memory_share": (0.05, 1.0),
    "gpu_memory_gib": (0.0, None),
    "cpu_slots": (0, None),
    "gpu_slots": (0, 1),
    "api_slots": (0, None),
    "lease_stale_seconds": (10.0, None),
}
# What speaks against more than the highest value, where that is no matter of course.
_WHY_NO_MORE = {"gpu_slots": "stages take the first `ranks` GPUs, so two at a time would meet on the same"}


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is there and not hidden, without importing torch."""
    return count_gpus() > 0


def count_gpus() -> int:
    """NVIDIA GPUs that are there and not hidden by `CUDA_VISIBLE_DEVICES`, without importing torch."""
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    visible = visible_gpus()
    return there if visible is None else min(there, visible)


def device_name() -> str:
    """What computes here, for people: the GPUs that the driver names, else the processor; "" where neither is told."""
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")) if has_gpu() else []
    names = [_told(file, "Model") for file in gpus] or [_told(Path("/proc/cpuinfo"), "model name")]
    return ", ".join(dict.fromkeys(filter(None, names)))


def auto_profile() -> Profile:
    """What fits this machine: one rank per GPU with ZeRO-3, or two gloo ranks with ZeRO-2."""
    return profile_for(cores=len(os.sched_getaffinity(0)), gpus=count_gpus())


def profile_for(*, cores: int, gpus: int) -> Profile:
    """What fits a machine of so many cores and GPUs; its ranks share the cores."""
    if gpus:
        return Profile(
            name="auto-gpu",
            ranks=gpus,
            zero_stage=3,
            threads_per_rank=max(1, cores // gpus),
            gpu_slots=1,
            cpu_slots=cores,
        )
    ranks = min(2, cores)
    return Profile(
        name="auto-cpu",
        ranks=ranks,
        micro_batch_conversations=8,
        row_tokens=4096,
        threads_per_rank=max(1, cores // ranks),
        cpu_slots=min(cores, 8),
    )


def load_profile(name: str | None, folder: Path = PROFILES) -> Profile:
    """The profile called `name` (`deployments/profiles/<name>.toml`, or a path to a TOML file); None detects.

    Raises:
        NotFound: no such file. BadInput: broken TOML, an unknown key, a value of the wrong type or out of range.
    """
    if name is None or name == "auto":
        return auto_profile()
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise unknown_name("profile", name, ["auto", *(found.stem for found in folder.glob("*.toml"))], "") from None
    except ValueError as error:  # of the text's encoding, or of the TOML
        raise BadInput(f"broken TOML: {error}", str(path), "mend the file") from error
    return Profile(**{"name": path.stem} | _checked(values, str(path)))


def _told(file: Path, field: str) -> str:
    """The first value of `field` in a file of lines `field: value`."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == field), ""
    )


def _checked(values: dict[str, Any], where: str) -> dict[str, Any]:
    known: dict[str, type] = {field.name: type(field.default) for field in fields(Profile)}
    for key, value in values.items():
        if key not in known:
            unknown = unknown_name("key", key, known)
            raise BadInput(f"unknown key `{key}`", where, unknown.fix)
        kind = known[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise BadInput(f"`{key}` is {value!r}, not a {kind.__name__}", where, f"write a {kind.__name__}")
        choices = _CHOICES.get(key)
        if choices and value not in choices:
            raise BadInput(f"`{key}` is `{value}`", where, f"write one of {', '.join(choices)}")
        low, high = _RANGES.get(key, (None, None))
        number: Any = value
        if (low is not None and number < low) or (high is not None and number > high):
            reach = f"from {low} to {high}" if high is not None else f"of {low} or more"
            why = f": {_WHY_NO_MORE[key]}" if key in _WHY_NO_MORE and high is not None and number > high else ""
            raise BadInput(f"`{key}` is {value}{why}", where, f"write a number {reach}")
    return values
