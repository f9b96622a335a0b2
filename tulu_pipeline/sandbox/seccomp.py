"""Which calls a program may make: those of one process with threads and files; the kernel refuses all others.

What is not on the list gets EPERM: sockets, new processes and programs, other processes' memory, namespaces, mounts,
keys, BPF, io_uring, performance counters, modules, clocks, and whatever a later kernel brings.
"""

from __future__ import annotations

import errno
import platform
import struct

# x86_64's numbers, aarch64's; None where a machine has no such call. Source: Linux's `unistd_64.h`, `unistd.h`.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # descriptors
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "fcntl": (72, 25), "flock": (73, 32), "dup": (32, 23),
    "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "sendfile": (40, 71),
    "copy_file_range": (326, 285), "close_range": (436, 436), "fadvise64": (221, 223), "fsync": (74, 82),
    "fdatasync": (75, 83), "ftruncate": (77, 46), "eventfd2": (290, 19),
    # files
    "open": (2, None), "openat": (257, 56), "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "mkdir": (83, None), "mkdirat": (258, 34),
    "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "truncate": (76, 45), "utimensat": (280, 88),
    "umask": (95, 166),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "madvise": (28, 233), "mincore": (27, 232), "get_mempolicy": (239, 236), "membarrier": (324, 283),
    # signals, threads, waiting
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "futex": (202, 98),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "set_tid_address": (218, 96), "rseq": (334, 293),
    "exit": (60, 93), "exit_group": (231, 94), "restart_syscall": (219, 128), "arch_prctl": (158, None),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168), "wait4": (61, 260),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    # time, and what a process is
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "alarm": (37, None), "getitimer": (36, 102), "setitimer": (38, 103), "getrandom": (318, 278),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158), "getpgrp": (111, None),
    "getpgid": (121, 155), "getsid": (124, 156), "uname": (63, 160), "sysinfo": (99, 179), "getrusage": (98, 165),
    "getrlimit": (97, 163),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_TGKILL, _IOCTL, _PRLIMIT64 = (234, 131), (16, 29), (302, 261)
_CLONE_THREAD = 0x00010000
_TERMINAL_QUESTIONS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONCLEX FIOCLEX

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_BIT = 0x40000000

_NUMBER, _ARCHITECTURE = 0, 4  # offsets in `struct seccomp_data`
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_REFUSE, _UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def is_known_machine() -> bool:
    """Whether this machine's calls are known."""
    return platform.machine() in _MACHINES


def call_filter(own_pid: int) -> list[bytes]:
    """The filter of a process that knows itself as `own_pid`, instruction by instruction.

    Raises:
        KeyError: a machine whose calls are not known.
    """
    column, architecture = _MACHINES[platform.machine()]
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, architecture, yes=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_AT_LEAST, _X32_BIT, no=1),
        _instruction(_RETURN, _KILL),
    ]
    for numbers in _ALLOWED.values():
        number = numbers[column]
        if number is not None:
            code += [_instruction(_JUMP_EQUAL, number, no=1), _instruction(_RETURN, _ALLOW)]
    # glibc falls back to `clone`, whose flags can be seen, where there is no `clone3`.
    code += [_instruction(_JUMP_EQUAL, _CLONE3[column], no=1), _instruction(_RETURN, _UNKNOWN)]
    code += _if_argument(_CLONE[column], 0, [_instruction(_JUMP_ANY_BIT, _CLONE_THREAD, no=1)])
    code += _if_argument(_TGKILL[column], 0, [_instruction(_JUMP_EQUAL, own_pid, no=1)])
    code += _if_argument(_PRLIMIT64[column], 0, [_instruction(_JUMP_EQUAL, 0, no=1)])
    for question in _TERMINAL_QUESTIONS:
        code += _if_argument(_IOCTL[column], 1, [_instruction(_JUMP_EQUAL, question, no=1)])
    return [*code, _instruction(_RETURN, _REFUSE)]


def _if_argument(number: int, index: int, test: list[bytes]) -> list[bytes]:
    """Allow a call if the lower half of one of its arguments passes a test; go on otherwise."""
    inside = [
        _instruction(_LOAD, 16 + 8 * index),
        *test,
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _NUMBER),
    ]
    return [_instruction(_JUMP_EQUAL, number, no=len(inside)), *inside]


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
