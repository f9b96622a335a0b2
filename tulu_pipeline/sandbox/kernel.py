"""Calls to the Linux kernel that Python has no name for. Each raises OSError where the kernel refuses."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR = MS_RDONLY | MS_NOSUID  # the bits are the same as of `mount`
# Of `unistd.h`: the same numbers on every machine that is known here, except where a machine is named.
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Go into new namespaces; a new pid namespace holds the children from the next on."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Go into the namespace of a descriptor; of pids, the children from the next on."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """`mount(2)`."""
    words = [word.encode() or None for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def make_read_only(target: str) -> None:
    """A mount and all below it, read-only and without set-user-id; Linux 5.12."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR, 0, 0, 0)
    _syscall(
        _MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )


def pivot_root(new: str, old: str) -> None:
    """`pivot_root(2)`."""
    _syscall(_PIVOT_ROOT[platform.machine()], new.encode(), old.encode())


def detach(target: str) -> None:
    """Take a mount and all below it away."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def drop_capabilities() -> None:
    """Give up whatever a user namespace gave; without `execve` it cannot be had again."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _syscall(_CAPSET[platform.machine()], ctypes.byref(header), ctypes.byref(nothing))


def forbid_new_privileges() -> None:
    """No program started from here gains any; a filter of calls wants it."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_calls(instructions: Sequence[bytes]) -> None:
    """Have the kernel ask a program of the Berkeley Packet Filter, of 8 bytes each, about every call from now on."""
    code = ctypes.create_string_buffer(b"".join(instructions))
    program = _Program(len(instructions), ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "prctl(PR_SET_SECCOMP)")


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option})")


def _syscall(number: int, *arguments: object) -> None:
    _check(_libc.syscall(ctypes.c_long(number), *arguments), f"system call {number}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
