"""Attempts to escape, each a program that passes only where it gets out: what a tier is worth, found by trying."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tulu_pipeline.sandbox.pool import run_programs
from tulu_pipeline.sandbox.program import Program, Tier, Verdict
from tulu_pipeline.sandbox.tiers import SAFE

_TIMEOUT_SECONDS = 1.0
_MOST_SECONDS = 10.0
# Names for calls that Python has none for, by number on both kinds of processor.
_CALL = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(x86_64, aarch64, *arguments):
    number = x86_64 if platform.machine() == "x86_64" else aarch64
    return libc.syscall(ctypes.c_long(number), *arguments)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One attempt.

    Attributes:
        name: of what is attempted.
        what: in words.
        source: a program that passes where the attempt succeeds. `SECRET`, `TARGET`, `HOST`, `PORT`, `RUN_PID` stand
            for a file outside and its folder, a server of ours, and the process that runs programs.
        outside_only: it concerns the files and processes of the machine, which the tier `none` does not hide.
    """

    name: str
    what: str
    source: str
    outside_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one attempt ended; `detail` says what stopped it, or what it did."""

    name: str
    what: str
    blocked: bool
    detail: str


PROBES: tuple[Probe, ...] = (
    Probe(
        name="network",
        what="connects to a server of this machine",
        source="import socket\nsocket.create_connection((HOST, PORT), timeout=1)",
    ),
    Probe(
        name="datagram",
        what="sends a datagram, without a connection",
        source="import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (HOST, PORT))",
    ),
    Probe(
        name="unix_socket",
        what="makes a socket of this machine",
        source="import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    ),
    Probe(name="read_file", what="reads a file of the user", source="open(SECRET).read()", outside_only=True),
    Probe(
        name="read_system",
        what="reads the machine's configuration",
        source="import os\nopen('/etc/passwd').read()",
        outside_only=True,
    ),
    Probe(
        name="write_file",
        what="writes into a folder of the user",
        source="open(TARGET + '/written', 'w').write('x')",
        outside_only=True,
    ),
    Probe(
        name="write_library",
        what="changes Python's own library",
        source="import os\nwith open(os.path.dirname(os.__file__) + '/tulu_probe.py', 'w') as file: file.write('x')",
        outside_only=True,
    ),
    Probe(
        name="fill_disk",
        what="writes more than its folder may hold",
        source="""
for number in range(64):
    with open(f"part_{number}", "wb") as file:
        for _ in range(8):
            file.write(bytes(2**20))
""",
        outside_only=True,
    ),
    Probe(
        name="large_file",
        what="writes one file of 17 MiB",
        source="with open('large', 'wb') as file: file.write(bytes(17 * 2**20))",
    ),
    Probe(name="fork", what="starts another process", source="import os\nif os.fork() == 0: os._exit(0)"),
    Probe(
        name="fork_bomb",
        what="starts processes without end",
        source="""
import os
started = 0
while started < 100:
    try:
        if os.fork() == 0:
            while True: pass
        started += 1
    except OSError:
        if not started: raise
        break
""",
    ),
    Probe(
        name="thread_bomb",
        what="starts 2,000 threads",
        source="""
import threading, time
for _ in range(2000):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
""",
    ),
    Probe(name="start_program", what="starts a program", source="import os\nos.execv('/bin/sh', ['sh', '-c', 'true'])"),
    Probe(
        name="subprocess",
        what="starts a program as subprocess does",
        source="import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)",
    ),
    Probe(name="memory_bomb", what="takes 3 GiB of memory", source="b'x' * (3 * 2**30)"),
    Probe(
        name="many_blocks",
        what="takes memory in small parts",
        source="parts = []\nfor _ in range(3 * 2**10): parts.append(bytearray(2**20))",
    ),
    Probe(
        name="ptrace",
        what="traces its parent",
        source=_CALL + "assert call(101, 117, 16, os.getppid() or 1, 0, 0) == 0 or call(101, 117, 0, 0, 0, 0) == 0",
    ),
    Probe(
        name="read_memory",
        what="reads another process's memory",
        source=_CALL
        + """
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8)
assert call(310, 270, RUN_PID, vector, 1, vector, 1, 0) == 8
""",
    ),
    Probe(
        name="user_namespace",
        what="makes a user namespace, where it would be root",
        source=_CALL + "assert libc.unshare(0x10000000) == 0",
    ),
    Probe(
        name="cloned_namespace",
        what="makes a process in a user namespace",
        source=_CALL + "assert call(56, 220, 0x10000000 | 17, 0, 0, 0, 0) >= 0",
    ),
    Probe(
        name="clone3",
        what="makes a process by the newer call",
        source=_CALL
        + "arguments = (ctypes.c_uint64 * 8)()\narguments[4] = 17\nassert call(435, 435, arguments, 64) >= 0",
    ),
    Probe(
        name="mount",
        what="mounts a file system",
        source=_CALL + "assert libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0",
    ),
    Probe(
        name="kill_run",
        what="ends the process that runs programs",
        source="import os, signal\nos.kill(RUN_PID, signal.SIGKILL)",
    ),
    Probe(
        name="kill_parent",
        what="ends its parent",
        source="import os, signal\nos.kill(os.getppid() or 1, signal.SIGKILL)",
    ),
    Probe(
        name="kill_all",
        what="ends every process it can",
        source="import os, signal\nos.kill(-1, signal.SIGTERM)",
    ),
    Probe(
        name="signal_by_thread",
        what="ends another process through one of its threads",
        source=_CALL + "assert call(234, 131, RUN_PID, RUN_PID, 15) == 0",
    ),
    Probe(
        name="descriptors",
        what="finds an open descriptor of the run",
        source="""
import os, stat
found = []
for number in range(4096):
    try:
        kind = os.fstat(number).st_mode
    except OSError:
        continue
    if number > 2 and not stat.S_ISFIFO(kind):
        found.append(number)
pipes = [number for number in range(3, 4096) if number not in found]
open_pipes = 0
for number in pipes:
    try:
        os.fstat(number)
        open_pipes += 1
    except OSError:
        pass
assert found or open_pipes > 1
""",
    ),
    Probe(
        name="environment",
        what="finds a variable of the run's environment",
        source="import os\nassert set(os.environ) & {'HOME', 'PATH', 'USER', 'HF_TOKEN', 'OPENAI_API_KEY'}",
    ),
    Probe(
        name="symbolic_link",
        what="reads a file of the user through a link",
        source="import os\nos.symlink(SECRET, 'link')\nopen('link').read()",
        outside_only=True,
    ),
    Probe(
        name="way_up",
        what="leaves its folder upwards",
        source="open('../' * 20 + SECRET.lstrip('/')).read()",
        outside_only=True,
    ),
    Probe(
        name="proc",
        what="sees the machine's processes",
        source="import os\nassert [name for name in os.listdir('/proc') if name.isdigit()]",
        outside_only=True,
    ),
    Probe(
        name="proc_root",
        what="reads a file of the user through a process's root",
        source="open(f'/proc/{RUN_PID}/root{SECRET}').read()",
        outside_only=True,
    ),
    Probe(name="devices", what="makes a device", source="import os, stat\nos.mknod('disk', stat.S_IFBLK | 0o600, 0)"),
    Probe(name="key_ring", what="reads the user's keys", source=_CALL + "assert call(250, 219, 0, -4, 0) >= 0"),
    Probe(name="bpf", what="loads a program into the kernel", source=_CALL + "assert call(321, 280, 0, 0, 0) >= 0"),
    Probe(
        name="io_uring",
        what="asks the kernel through a ring",
        source=_CALL + "parameters = ctypes.create_string_buffer(256)\nassert call(425, 425, 4, parameters) >= 0",
    ),
    Probe(
        name="raise_limits",
        what="raises its own limits",
        source="import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    ),
    Probe(name="set_user", what="becomes another user", source="import os\nos.setuid(1)"),
    Probe(
        name="endless_output",
        what="writes output without end",
        source="while True: print('x' * 10_000)",
    ),
    Probe(name="sleep", what="sleeps longer than it may", source="import time\ntime.sleep(60)"),
    Probe(
        name="stays",
        what="ignores every signal and goes on",
        source="""
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True: pass
""",
    ),
    Probe(
        name="other_calls",
        what="makes calls of the 32-bit kind",
        source=_CALL + "assert platform.machine() == 'x86_64' and call(0x40000000 + 39, 0) > 0",
    ),
)


def probe(
    tier: Tier,
    *,
    names: Collection[str] = (),
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Finding]:
    """Make each attempt in a tier; of the tier `none`, those at what it does not hide are not made.

    Args:
        tier: where.
        names: of the attempts to make; empty for all.
        workers: attempts at a time.
        progress: told how many were made, and of how many.

    Raises:
        StageFailed: the tier cannot be had here.
    """
    probes = [each for each in PROBES if (tier in SAFE or not each.outside_only) and (not names or each.name in names)]
    by_name = {each.name: each for each in probes}
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as server:
        secret = Path(folder, "secret")
        secret.write_text(secrets.token_hex())
        secret.chmod(0o644)
        head = (
            f"SECRET, TARGET, RUN_PID = {str(secret)!r}, {folder!r}, {os.getpid()}\n"
            f"HOST, PORT = '127.0.0.1', {server.getsockname()[1]}\n"
        )
        programs = [Program(program_id=each.name, source=head + each.source) for each in probes]
        started = time.monotonic()
        verdicts = run_programs(programs, timeout_seconds=_TIMEOUT_SECONDS, workers=workers, tier=tier)
        for done, verdict in enumerate(verdicts, 1):
            progress(done, len(probes))
            yield _finding(by_name[verdict.program_id], verdict)
        left = [path.name for path in Path(folder).iterdir() if path != secret]
        seconds = time.monotonic() - started
        yield Finding(
            name="aftermath",
            what="leaves a file behind",
            blocked=not left,
            detail=f"found {', '.join(left)}" if left else f"nothing, after {seconds:.1f} s",
        )


def _finding(attempt: Probe, verdict: Verdict) -> Finding:
    detail = {
        "passed": "succeeded",
        "timed_out": f"ended after {verdict.seconds:.1f} s",
        "killed": f"ended by {verdict.error}",
    }.get(verdict.outcome, verdict.error)
    blocked = not verdict.passed and verdict.seconds < _MOST_SECONDS and len(verdict.output) <= 2**16
    return Finding(name=attempt.name, what=attempt.what, blocked=blocked, detail=detail)
