"""The machine a run happens on: how fast and how wide, never what. Nothing here enters a key."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, cast

from tulu_pipeline.errors import BadInput, NotFound
from tulu_pipeline.settings import gpus_hidden

Slot = Literal["cpu", "gpu", "api"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Execution settings; a run with another profile gives artifacts of the same keys.

    Attributes:
        ranks: processes of one finetuning job (one per GPU; 2 gloo ranks on a CPU).
        zero_stage: DeepSpeed ZeRO stage, 0 to 3.
        offload: keep optimizer state in CPU memory.
        micro_batch_conversations: conversations per rank and forward pass.
        checkpoint_every_steps: resumable trainer state is saved this often; 0 never.
        threads_per_rank: OpenMP threads of each rank.
        engine_cache_gib: key-value cache of the generation engine on a CPU.
        gpu_memory_share: share of GPU memory the generation engine may take.
        cpu_slots: stages that may run side by side on the CPU; likewise gpu_slots and api_slots.
        lease_stale_seconds: a silent holder on another host is taken over after this long.
    """

    name: str = "auto"
    ranks: int = 1
    zero_stage: int = 2
    offload: bool = False
    micro_batch_conversations: int = 4
    checkpoint_every_steps: int = 200
    threads_per_rank: int = 1
    engine_cache_gib: int = 1
    gpu_memory_share: float = 0.9
    cpu_slots: int = 2
    gpu_slots: int = 0
    api_slots: int = 8
    lease_stale_seconds: float = 60.0

    def slots(self) -> dict[Slot, int]:
        """Stages that may run side by side, by what they need; a GPU stage takes the CPU where there is no GPU."""
        return {"cpu": max(1, self.cpu_slots), "gpu": max(1, self.gpu_slots), "api": max(1, self.api_slots)}


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is there and not hidden, without importing torch."""
    return Path("/dev/nvidia0").exists() and not gpus_hidden()


def auto_profile() -> Profile:
    """What fits this machine: one rank per GPU with ZeRO-3, or two gloo ranks with ZeRO-2."""
    cores = len(os.sched_getaffinity(0))
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*"))) if has_gpu() else 0
    if gpus:
        return Profile(name="auto-gpu", ranks=gpus, zero_stage=3, gpu_slots=gpus, cpu_slots=cores)
    ranks = min(2, cores)
    return Profile(name="auto-cpu", ranks=ranks, threads_per_rank=max(1, cores // ranks), cpu_slots=min(cores, 8))


def load_profile(name: str | None, folder: Path = Path("deployments/profiles")) -> Profile:
    """The profile called `name` (`deployments/profiles/<name>.toml`, or a path to a TOML file); None detects.

    Raises:
        NotFound: no such file. BadInput: broken TOML, an unknown key, a value of the wrong type.
    """
    if name is None or name == "auto":
        return auto_profile()
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.exists():
        known = sorted(found.stem for found in folder.glob("*.toml"))
        raise NotFound(
            f"no profile `{name}`", str(path), f"known: {', '.join(['auto', *known])}, or a path to a TOML file"
        )
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"broken TOML: {error}", str(path), "mend the file") from error
    known_fields = {field.name: field for field in fields(Profile)}
    for key, value in values.items():
        if key not in known_fields:
            raise BadInput(f"unknown key `{key}`", str(path), f"known: {', '.join(sorted(known_fields))}")
        if not isinstance(value, type(known_fields[key].default)) and not (
            isinstance(value, int) and isinstance(known_fields[key].default, float)
        ):
            wanted = type(known_fields[key].default).__name__
            raise BadInput(f"`{key}` is {value!r}, not a {wanted}", str(path), f"write a {wanted}")
    return Profile(**cast(dict[str, str], {"name": path.stem} | values))  # type: ignore[arg-type]  # types checked above
