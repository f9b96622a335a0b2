"""What a machine can run programs in.

namespaces   user, mount, pid, network, IPC and UTS namespaces of our own, made by a process that forks each program:
             milliseconds each
bubblewrap   the same by `bwrap`, one process of it a program: tens of milliseconds
none         in the machine's own world. Calls and resources are limited as in the others, but a program reads and
             writes the files of whoever runs it

Every tier runs a program with no capabilities, resource limits and a list of calls that leaves out sockets, processes,
signals to others and namespaces.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache

from tulu_pipeline.errors import MissingOnMachine
from tulu_pipeline.sandbox.program import Tier
from tulu_pipeline.sandbox.seccomp import is_known_machine

SAFE: tuple[Tier, ...] = ("namespaces", "bubblewrap")


def best_tier(*, unsafe_code: bool = False) -> Tier:
    """The best tier of this machine.

    Args:
        unsafe_code: whether `none` will do.

    Raises:
        MissingOnMachine: there is no safe one, and `none` will not do.
    """
    reasons = {}
    for tier in SAFE:
        reasons[tier] = what_refuses(tier)
        if not reasons[tier]:
            return tier
    if unsafe_code and not what_refuses("none"):
        return "none"
    raise MissingOnMachine(
        "programs that a model wrote cannot be isolated here\n"
        + "\n".join(f"{tier}: {reason}" for tier, reason in reasons.items()),
        "sandbox",
        "`apt install bubblewrap`, or allow user namespaces (`sysctl user.max_user_namespaces`; in a container, its "
        "seccomp profile); or, where nothing of value is in reach, `--unsafe-code`",
    )


@cache
def what_refuses(tier: Tier) -> str:
    """Why a tier cannot be had here, found by trying; "" where it can."""
    if not sys.platform.startswith("linux"):
        return "it takes Linux"
    if not is_known_machine():
        return "the system calls of this kind of processor are not known"
    if tier == "bubblewrap" and bwrap() is None:
        return "there is no `bwrap`: `apt install bubblewrap`"
    from tulu_pipeline.sandbox.pool import try_out

    return try_out(tier)


def bwrap() -> str | None:
    """The program `bwrap`."""
    return shutil.which("bwrap")


@cache
def bwrap_bounds_folders() -> bool:
    """Whether it knows how to bound a tmpfs (0.7 and later)."""
    path = bwrap()
    if path is None:
        return False
    told = subprocess.run([path, "--help"], capture_output=True, text=True, check=False).stdout
    return "--size" in told
