"""What a run would compute on: the GPUs of this machine, those that its profile names, or the processor."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from shutil import which

from tulu_pipeline.profile import Profile, count_gpus, device_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a rank computes on.

    Attributes:
        name: of the GPU, or of the processor.
        is_gpu: whether it is one.
        memory_bytes: of one rank; None where that is not known.
        here: whether it is in this machine, or what the profile says.
    """

    name: str
    is_gpu: bool
    memory_bytes: int | None
    here: bool


def find_device(profile: Profile) -> Device:
    """The GPU of this machine, else the profile's; the processor where the profile has none either."""
    if count_gpus():
        name = device_name().split(", ")[0] or profile.gpu
        memory = _gpu_memory_bytes() or _gib(profile.gpu_memory_gib)
        return Device(name=name, is_gpu=True, memory_bytes=memory, here=True)
    if profile.gpu or profile.gpu_memory_gib or profile.gpu_slots:
        return Device(name=profile.gpu, is_gpu=True, memory_bytes=_gib(profile.gpu_memory_gib), here=False)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // profile.ranks
    return Device(name=device_name(), is_gpu=False, memory_bytes=memory, here=True)


def _gib(number: float) -> int | None:
    return round(number * 2**30) or None


def _gpu_memory_bytes() -> int | None:
    """Of the first GPU, as the driver says."""
    command = which("nvidia-smi")
    if command is None:
        return None
    words = [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout
        return int(told.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
