"""What holds for every program in every tier: limits, no capabilities, no calls but those of one process."""

from __future__ import annotations

import math
import os
import resource

from tulu_pipeline.sandbox import kernel
from tulu_pipeline.sandbox.seccomp import call_filter

ADDRESS_SPACE_BYTES = 2 * 2**30
FILE_BYTES = 16 * 2**20
DESCRIPTORS = 32
THREADS = 64
STACK_BYTES = 8 * 2**20


def confine(timeout_seconds: float) -> None:
    """Confine this process, for good; `timeout_seconds` is what it has of the clock, and little more of processors.

    Raises:
        OSError: the kernel refuses.
    """
    cpu_seconds = math.ceil(timeout_seconds) + 1
    for kind, most in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_NPROC, THREADS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, STACK_BYTES),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    kernel.drop_capabilities()
    kernel.forbid_new_privileges()
    kernel.filter_calls(call_filter(os.getpid()))
