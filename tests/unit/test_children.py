"""No child outlives its run, however either ends, and what it says arrives."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import wait_for
from toy_graph import Workshop

from tulu_pipeline.artifacts.children import end_all_children, run_child, supervised, tail
from tulu_pipeline.artifacts.lease import process_start
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed

ROOT = Path(__file__).parent.parent.parent
NOTE = """
import os, signal, subprocess, sys, time
def note():
    with open(sys.argv[1], "a") as pids:
        pids.write(f"{os.getpid()}\\n")
"""
# What descendants do to slip away, and how many of them note their process id.
ESCAPES = {
    "plain": (1, "note(); time.sleep(600)"),
    "ignores signals": (
        1,
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n    signal.signal(number, signal.SIG_IGN)\n"
        "note(); time.sleep(600)",
    ),
    "leaves the session": (2, "child = os.fork()\nif not child: os.setsid()\nnote(); time.sleep(600)"),
    "daemon": (
        1,
        "if os.fork(): time.sleep(600)\nos.setsid()\nif os.fork(): os._exit(0)\nnote(); time.sleep(600)",
    ),
    "stubborn grandchild": (
        2,
        "if not os.fork():\n    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\nnote(); time.sleep(600)",
    ),
    "stopped": (1, "note(); os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)"),
}
PLAIN = NOTE + ESCAPES["plain"][1]
ALL = sum(count for count, _ in ESCAPES.values())


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext:
    return Workshop(tmp_path / "shop").ctx


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def pids_in(path: Path, count: int = 1) -> list[int]:
    """The process ids noted in a file, once there are `count`."""
    wait_for(lambda: path.exists() and path.read_text().count("\n") >= count)
    return [int(line) for line in path.read_text().split()]


def wait_until_gone(pids: Sequence[int], seconds: float = 5.0) -> None:
    wait_for(lambda: not any(map(process_start, pids)), seconds)


@contextlib.contextmanager
def run_elsewhere(tmp_path: Path, command: Sequence[str], before: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that runs `command` with run_child, and does `before` once the child is there."""
    code = f"""
import os, signal, subprocess, sys, time, threading
sys.path.insert(0, {str(ROOT / "tests")!r})
from pathlib import Path
from toy_graph import Workshop
from tulu_pipeline.artifacts.children import run_child
import dataclasses
def on_child(pid):
    Path(sys.argv[1], 'supervisor').write_text(f'{{pid}}\\n')
    {before or "pass"}
ctx = dataclasses.replace(Workshop(Path(sys.argv[1], 'elsewhere')).ctx, on_child=on_child)
run_child(sys.argv[2:], ctx=ctx, log=Path(sys.argv[1], 'log'))
"""
    with subprocess.Popen(python(code, tmp_path, *command), cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


# what a child says


def test_both_streams_are_in_the_log(ctx: RunContext, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log"
    run_child(python("import sys; print('out'); print('err', file=sys.stderr)"), ctx=ctx, log=log)
    assert sorted(log.read_text().splitlines()) == ["err", "out"]
    run_child(python("print('more')"), ctx=ctx, log=log)
    assert log.read_text().endswith("more\n")


def test_events_arrive_in_order_and_not_in_the_log(ctx: RunContext, tmp_path: Path) -> None:
    code = """
import sys
from tulu_pipeline.artifacts.child_side import emit
for step in range(100):
    emit({"step": step, "text": "é\\n@tulu {}"})
    sys.stdout.write(f"half a line {step} ")
    sys.stdout.flush()
"""
    events: list[dict[str, Any]] = []
    run_child(python(code), ctx=ctx, log=tmp_path / "log", on_event=events.append)
    assert events == [{"step": step, "text": "é\n@tulu {}"} for step in range(100)]
    assert "@tulu" not in (tmp_path / "log").read_text()
    assert "half a line 99" in (tmp_path / "log").read_text()


def test_events_of_a_grandchild_arrive(ctx: RunContext, tmp_path: Path) -> None:
    inner = "from tulu_pipeline.artifacts.child_side import emit; emit({'from': 'grandchild'})"
    events: list[dict[str, Any]] = []
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    run_child(python(code), ctx=ctx, log=tmp_path / "log", on_event=events.append)
    assert events == [{"from": "grandchild"}]


def test_long_events_arrive_whole(ctx: RunContext, tmp_path: Path) -> None:
    code = "from tulu_pipeline.artifacts.child_side import emit; emit({'text': 'x' * 1_000_000})"
    events: list[dict[str, Any]] = []
    run_child(python(code), ctx=ctx, log=tmp_path / "log", on_event=events.append)
    assert [len(event["text"]) for event in events] == [1_000_000]


def test_a_log_on_a_full_disk_ends_no_child_and_is_told_once(ctx: RunContext, caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no disk here is always full")
    code = """
import sys
from tulu_pipeline.artifacts.child_side import emit
for step in range(3):
    print("a line", flush=True)
    emit({"step": step})
"""
    events: list[dict[str, Any]] = []
    run_child(python(code), ctx=ctx, log=full, on_event=events.append)
    assert events == [{"step": step} for step in range(3)]
    assert [record.getMessage() for record in caplog.records] == ["/dev/full: lines are lost: No space left on device"]


@pytest.mark.parametrize("line", ["@tulu {", "@tulu ", "@tulu [1]", "@tulu 3"])
def test_what_is_no_event_is_kept_in_the_log(ctx: RunContext, tmp_path: Path, line: str) -> None:
    events: list[dict[str, Any]] = []
    run_child(python(f"print({line!r})"), ctx=ctx, log=tmp_path / "log", on_event=events.append)
    assert events == []
    assert line in (tmp_path / "log").read_text()


def test_output_without_end_of_line_and_of_any_bytes_is_kept(ctx: RunContext, tmp_path: Path) -> None:
    code = "import os; os.write(1, b'\\n\\nx\\n\\n\\n@tulu {}\\n\\n' + b'\\xff\\0' * 100_000)"
    run_child(python(code), ctx=ctx, log=tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == b"\n\nx\n\n\n" + b"\xff\0" * 100_000


def test_lines_of_two_streams_do_not_mix(ctx: RunContext, tmp_path: Path) -> None:
    code = "import os\nfor _ in range(200): os.write(1, b'out'); os.write(2, b'err\\n'); os.write(1, b'\\n')"
    run_child(python(code), ctx=ctx, log=tmp_path / "log")
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["err"] * 200 + ["out"] * 200


def test_output_without_end_of_line_is_in_the_log_while_it_comes(ctx: RunContext, tmp_path: Path) -> None:
    code = "import os, sys, time; os.write(1, b'loading...'); open(sys.argv[1], 'w').close(); time.sleep(600)"
    thread = threading.Thread(target=attempt, args=(python(code, tmp_path / "written"), ctx, tmp_path / "log"))
    thread.start()
    wait_for((tmp_path / "written").exists)
    wait_for(lambda: (tmp_path / "log").read_text() == "loading...")
    end_all_children()
    thread.join()


def attempt(command: Sequence[str], ctx: RunContext, log: Path) -> None:
    with contextlib.suppress(StageFailed):
        run_child(command, ctx=ctx, log=log)


# how a child ends


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('the reason'); raise SystemExit(3)", "ended with code 3"),
        ("import os; print('the reason', flush=True); os.kill(os.getpid(), 9)", "ended with code 137"),
        ("raise ValueError('the reason')", "ended with code 1"),
    ],
)
def test_failed_child_is_told_with_its_last_lines(ctx: RunContext, tmp_path: Path, code: str, told: str) -> None:
    with pytest.raises(StageFailed) as failed:
        run_child(python(f"print('line\\n' * 100)\n{code}"), ctx=ctx, log=tmp_path / "log")
    assert told in failed.value.what
    assert "the reason" in failed.value.what
    assert failed.value.what.count("\n") <= 26
    assert failed.value.where == str(tmp_path / "log")


def test_command_that_is_not_there_is_told(ctx: RunContext, tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as failed:
        run_child(["/no/such/program", "x"], ctx=ctx, log=tmp_path / "log")
    assert "No such file or directory: '/no/such/program'" in failed.value.what
    assert "Traceback" not in failed.value.what


def test_error_of_an_event_handler_ends_the_child(ctx: RunContext, tmp_path: Path) -> None:
    code = NOTE + "note(); print('@tulu {}', flush=True); time.sleep(600)"

    def broken(event: dict[str, Any]) -> None:
        raise StageFailed("the handler is broken")

    with pytest.raises(StageFailed, match="the handler is broken"):
        run_child(python(code, tmp_path / "pids"), ctx=ctx, log=tmp_path / "log", on_event=broken)
    wait_until_gone(pids_in(tmp_path / "pids"))


def test_what_a_child_leaves_behind_ends_with_it(ctx: RunContext, tmp_path: Path) -> None:
    code = f"""
for escape in {[NOTE + escape for _, escape in ESCAPES.values()]!r}:
    subprocess.Popen([sys.executable, "-c", escape, sys.argv[1]])
while not os.path.exists(sys.argv[1]) or open(sys.argv[1]).read().count("\\n") < {ALL}:
    time.sleep(0.02)
"""
    run_child(python(NOTE + code, tmp_path / "pids"), ctx=ctx, log=tmp_path / "log")
    wait_until_gone(pids_in(tmp_path / "pids", ALL), 1.0)


@pytest.mark.parametrize("escape", ESCAPES)
def test_kill_9_of_the_run_ends_every_descendant(tmp_path: Path, escape: str) -> None:
    pids, (count, code) = tmp_path / "pids", ESCAPES[escape]
    with run_elsewhere(tmp_path, python(NOTE + code, pids)) as process:
        found = [*pids_in(pids, count), *pids_in(tmp_path / "supervisor")]
        process.kill()
        process.wait()
        wait_until_gone(found)


def test_kill_9_of_the_run_ends_the_child_though_a_fork_of_the_run_lives_on(tmp_path: Path) -> None:
    pids, fork = tmp_path / "pids", tmp_path / "fork"
    before = f"os.fork() or (Path({str(fork)!r}).write_text(f'{{os.getpid()}}\\n'), time.sleep(30), os._exit(0))"
    with run_elsewhere(tmp_path, python(PLAIN, pids), before) as process:
        found, (left,) = pids_in(pids), pids_in(fork)
        process.kill()
        process.wait()
        wait_until_gone([*found, *pids_in(tmp_path / "supervisor")])
        assert process_start(left)
        os.kill(left, signal.SIGKILL)


def test_terminated_run_ends_every_descendant(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with run_elsewhere(tmp_path, python(NOTE + ESCAPES["stubborn grandchild"][1], pids)) as process:
        found = pids_in(pids, 2)
        process.terminate()
        process.wait()
        wait_until_gone(found)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("faithful", [True, False])
def test_kill_9_of_the_supervisor_ends_the_child_and_the_wait(ctx: RunContext, tmp_path: Path, faithful: bool) -> None:
    """The command itself ends; of what it started, whoever calls `end_with_parent`."""
    inner = "import os, sys, time\nfrom tulu_pipeline.artifacts.child_side import end_with_parent\n"
    inner += "end_with_parent()\n" if faithful else ""
    inner += "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
    code = NOTE + f"note(); subprocess.run([sys.executable, '-c', {inner!r}, sys.argv[1]])"
    pids = tmp_path / "pids"
    killer = threading.Thread(target=lambda: (pids_in(pids, 2), os.kill(supervisor[0], signal.SIGKILL)))
    supervisor: list[int] = []
    killer.start()
    with pytest.raises(StageFailed, match="code -9"):
        run_child(python(code, pids), ctx=dataclasses.replace(ctx, on_child=supervisor.append), log=tmp_path / "log")
    killer.join()
    command, grandchild = pids_in(pids, 2)
    wait_until_gone([command, grandchild] if faithful else [command])
    with contextlib.suppress(ProcessLookupError):
        os.kill(grandchild, signal.SIGKILL)


def test_asked_to_end_a_child_has_time_to_clean_up(ctx: RunContext, tmp_path: Path) -> None:
    code = NOTE + (
        "def clean(*_):\n    time.sleep(0.3); open(sys.argv[1] + '.clean', 'a').write('x'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, clean); note(); time.sleep(600)"
    )
    thread = threading.Thread(target=attempt, args=(python(code, tmp_path / "pids"), ctx, tmp_path / "log"))
    thread.start()
    pids = pids_in(tmp_path / "pids")
    end_all_children()
    thread.join(10)
    assert not thread.is_alive()
    wait_until_gone(pids, 0.5)
    assert (tmp_path / "pids.clean").read_text() == "x"


def test_child_lives_on_when_the_thread_that_started_it_ends(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        command = python(PLAIN, tmp_path / "pids")
        child = supervised(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        thread = threading.Thread(target=stack.enter_context, args=(child,))
        thread.start()
        thread.join()
        pids = pids_in(tmp_path / "pids")
        time.sleep(0.3)
        assert process_start(pids[0])
    wait_until_gone(pids, 1.0)


# what a child is given


def test_child_knows_its_supervisor_and_gets_what_was_set(ctx: RunContext, tmp_path: Path) -> None:
    code = "import os; print(os.environ['TULU_SUPERVISOR_PID'], os.getppid(), os.environ['MINE'], os.environ['PATH'])"
    told: list[int] = []
    ctx = dataclasses.replace(ctx, on_child=told.append)
    run_child(python(code), ctx=ctx, log=tmp_path / "log", env={"MINE": "yes"})
    assert (tmp_path / "log").read_text() == f"{told[0]} {told[0]} yes {os.environ['PATH']}\n"


def test_child_starts_with_default_signals_and_no_terminal(ctx: RunContext, tmp_path: Path) -> None:
    code = (
        "import os, signal; print([signal.getsignal(n) == d for n, d in ((signal.SIGTERM, signal.SIG_DFL), "
        "(signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL))], os.read(0, 1), "
        "sorted(os.listdir('/proc/self/fd')))"
    )
    run_child(python(code), ctx=ctx, log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "[True, True, True] b'' ['0', '1', '2', '3']\n"


def test_child_of_a_child_has_its_own_supervisor(ctx: RunContext, tmp_path: Path) -> None:
    inner = "import os; assert os.environ['TULU_SUPERVISOR_PID'] == str(os.getppid()); print('inner')"
    outer = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from pathlib import Path
from toy_graph import Workshop
from tulu_pipeline.artifacts.children import run_child
log = Path(sys.argv[1], 'inner')
run_child([sys.executable, '-c', {inner!r}], ctx=Workshop(Path(sys.argv[1], 'w')).ctx, log=log)
"""
    run_child(python(outer, tmp_path), ctx=ctx, log=tmp_path / "outer")
    assert (tmp_path / "inner").read_text() == "inner\n"


def test_no_file_descriptor_is_left_open(ctx: RunContext, tmp_path: Path) -> None:
    run_child(python(""), ctx=ctx, log=tmp_path / "log")
    before = set(os.listdir("/proc/self/fd"))
    for command in (python(""), python("raise SystemExit(1)"), ["/no/such/program"], ["x" * 300_000]):
        with contextlib.suppress(StageFailed, OSError):
            run_child(command, ctx=ctx, log=tmp_path / "log")
    assert set(os.listdir("/proc/self/fd")) <= before  # what tests before this one left may be closed meanwhile


def test_several_children_run_side_by_side(ctx: RunContext, tmp_path: Path) -> None:
    code = 'import sys, time; time.sleep(0.2); print(\'@tulu {"name": "%s"}\' % sys.argv[1])'
    events: dict[str, list[dict[str, Any]]] = {name: [] for name in "abcd"}
    threads = [
        threading.Thread(
            target=run_child,
            args=(python(code, name),),
            kwargs={"ctx": ctx, "log": tmp_path / name, "on_event": events[name].append},
        )
        for name in events
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events == {name: [{"name": name}] for name in events}


def test_tail_of_a_large_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with open(log, "wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nfirst\nlast\n")
    began = time.monotonic()
    assert tail(log, 2) == "first\nlast"
    assert time.monotonic() - began < 1
    assert tail(tmp_path / "none") == ""
