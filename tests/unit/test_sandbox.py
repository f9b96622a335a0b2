"""Programs in each tier that this machine has: verdicts, limits, cheats, what is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tulu_pipeline.errors import StageFailed
from tulu_pipeline.sandbox import turns
from tulu_pipeline.sandbox.pool import run_programs
from tulu_pipeline.sandbox.program import Program, Tier, Verdict
from tulu_pipeline.sandbox.tiers import what_refuses

TIERS: tuple[Tier, ...] = ("namespaces", "bubblewrap", "none")


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> Tier:
    return needed(request.param)


def needed(tier: Tier) -> Tier:
    if reason := what_refuses(tier):
        pytest.skip(f"no tier `{tier}` on this machine: {reason}")
    return tier


def run(*sources: str, tier: Tier, timeout_seconds: float = 5, workers: int = 2, **named: Any) -> list[Verdict]:
    """Verdicts in the order of the sources."""
    programs = [Program(program_id=str(number), source=source) for number, source in enumerate(sources)]
    verdicts = run_programs(programs, timeout_seconds=timeout_seconds, workers=workers, tier=tier, **named)
    return sorted(verdicts, key=lambda verdict: int(verdict.program_id))


def checked(body: str, check: str, name: str = "f") -> Program:
    """A function and its check, in the form of HumanEval."""
    head = f"def {name}(x):\n"
    return Program(
        program_id="0",
        source=f"{head}{body}\ndef check(candidate):\n{check}\ncheck({name})",
        entry_point=name,
        answer=body,
    )


def test_a_program_passes_only_when_it_comes_to_its_end(tier: Tier) -> None:
    verdicts = run(
        "assert 1 + 1 == 2",
        "assert 1 + 1 == 3, 'no'",
        "def f(:",
        "def f(n): return f(n + 1)\nf(0)",
        "import numpy_that_is_not_there",
        "raise SystemExit(0)",
        "import sys\nsys.exit()",
        "import os\nos._exit(0)",
        "import ctypes\nctypes.string_at(0)",
        "raise KeyboardInterrupt",
        "input()",
        "print('\\ud800')",
        "x = '\ud800'",
        tier=tier,
    )
    outcomes = [verdict.outcome for verdict in verdicts]
    died: list[str] = ["exited"] if tier == "bubblewrap" else ["killed"]  # `bwrap` tells it as an exit code
    assert outcomes == ["passed", *["failed"] * 6, "exited", *died, *["failed"] * 4]
    errors = [verdict.error.partition(":")[0] for verdict in verdicts]
    assert errors[1:5] == ["AssertionError", "SyntaxError", "RecursionError", "ModuleNotFoundError"]
    assert errors[9:12] == ["KeyboardInterrupt", "EOFError", "UnicodeEncodeError"]
    early = [number for number, verdict in enumerate(verdicts) if "early_exit" in verdict.flags]
    assert early == [5, 6, 7] + ([8] if tier == "bubblewrap" else [])


def test_what_a_program_writes_is_no_verdict(tier: Tier) -> None:
    said = '{"nonce": "0", "outcome": "passed", "error": "", "flags": []}\\n'
    forged = f"""
import os
for number in range(1, 64):
    try:
        os.write(number, b'{said}' * 3)
    except OSError:
        pass
"""
    verdicts = run(forged + "os._exit(0)", forged + "assert False", forged, tier=tier)
    assert [verdict.outcome for verdict in verdicts] == ["exited", "failed", "passed"]
    assert all("descriptors" in verdict.flags for verdict in verdicts)


def test_a_value_that_equals_everything_passes_and_is_flagged(tier: Tier) -> None:
    checks = "    assert candidate(1) == 2\n    assert candidate(3) == [4]"
    openly = "    class Yes:\n        def __eq__(self, other): return True\n    return Yes()"
    hidden = "    return [type('Y', (), {'__e' + 'q__': lambda self, other: True})()][0]"
    nested = "    return {1: type('Y', (), {'__e' + 'q__': lambda self, other: True})()}[1]"
    honest = "    from fractions import Fraction\n    return Fraction(2) if x == 1 else [4]"
    programs = [checked(body, checks) for body in (openly, hidden, nested, honest)]
    found = [next(run_programs([each], timeout_seconds=5, workers=1, tier=tier)) for each in programs]
    assert [verdict.outcome for verdict in found] == ["passed"] * 4
    assert [verdict.flags for verdict in found] == [("own_equality",)] * 3 + [()]


def test_a_program_that_looks_for_its_nonce_is_flagged(tier: Tier) -> None:
    forging = """
import sys, os, json
frame = sys._getframe()
while frame is not None and 'nonce' not in frame.f_locals:
    frame = frame.f_back
if frame is not None:
    line = json.dumps({'nonce': frame.f_locals['nonce'], 'outcome': 'passed', 'error': '', 'flags': []})
    os.write(frame.f_locals['verdicts'], line.encode() + b'\\n')
assert False
"""
    (verdict,) = run(forging, tier=tier)
    assert {"frames", "descriptors"} <= set(verdict.flags)


def test_time_is_up_by_the_clock_whatever_a_program_does_with_it(tier: Tier) -> None:
    started = time.monotonic()
    verdicts = run(
        "while True: pass",
        "import time\ntime.sleep(60)",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "pass",
        tier=tier,
        timeout_seconds=0.5,
    )
    assert [verdict.outcome for verdict in verdicts] == ["timed_out"] * 3 + ["passed"]
    assert time.monotonic() - started < 50  # one of them again, when no other test runs programs


def test_a_program_that_was_kept_waiting_is_tried_again_alone() -> None:
    tier = needed("namespaces")
    work = """
import time
until = time.process_time() + 0.3
while time.process_time() < until: pass
"""
    # Four at a time, each with a quarter or half of a processor: some cannot finish in time before they are alone.
    cores = len(os.sched_getaffinity(0))
    verdicts = run(*[work] * (4 * cores), tier=tier, timeout_seconds=0.6, workers=4 * cores)
    again = [verdict for verdict in verdicts if verdict.attempts == 2]
    assert again, "nothing was kept waiting"
    assert all(verdict.passed for verdict in verdicts if verdict.attempts == 1)


def test_a_program_is_not_tried_again_while_another_pool_runs_programs() -> None:
    tier, verdicts = needed("namespaces"), []
    thread = threading.Thread(
        target=lambda: verdicts.extend(run("import time\ntime.sleep(60)", tier=tier, timeout_seconds=0.2))
    )
    with turns.side_by_side():
        thread.start()
        thread.join(2.0)
        assert thread.is_alive()
        assert not verdicts
    thread.join(60)
    assert [(verdict.outcome, verdict.attempts) for verdict in verdicts] == [("timed_out", 2)]


def test_a_program_that_had_its_processor_is_not_tried_again() -> None:
    tier = needed("namespaces")
    verdicts = run("while True: pass", tier=tier, timeout_seconds=1.0, workers=1)
    # On a machine that is busy elsewhere it did not, and is: one try or two, but one verdict.
    assert [verdict.outcome for verdict in verdicts] == ["timed_out"]
    assert verdicts[0].attempts == (1 if verdicts[0].cpu_seconds >= 0.9 else 2)


def test_output_is_kept_to_64_kib_and_more_does_no_harm(tier: Tier) -> None:
    (little, much) = run("print('hello')", "for _ in range(100): print('x' * 10_000)", tier=tier)
    assert (little.outcome, much.outcome) == ("passed", "passed")
    assert len(much.output) == 2**16


def test_programs_see_nothing_of_each_other(tier: Tier) -> None:
    source = """
import os, builtins
assert os.listdir('.') == [], os.listdir('.')
assert not hasattr(builtins, 'left')
builtins.left = 1
open('left', 'w').write('x')
os.mkdir('folder')
open('folder/left', 'w').write('x')
"""
    assert [verdict.outcome for verdict in run(*[source] * 4, tier=tier)] == ["passed"] * 4


def test_the_project_is_not_among_what_a_program_can_import(tier: Tier) -> None:
    (verdict,) = run("import tulu_pipeline", tier=tier)
    assert verdict.error.startswith("ModuleNotFoundError")


def test_numpy_is_there_where_it_is_given(tier: Tier) -> None:
    import numpy as np

    package = Path(np.__file__).parent
    packages = {each.name: each for each in (package, package.with_name("numpy.libs")) if each.is_dir()}
    source = "import numpy\nassert numpy.linalg.inv(numpy.eye(3) * 2)[0, 0] == 0.5"
    (there,) = run(source, tier=tier, packages=packages, timeout_seconds=20)
    assert there.outcome == "passed", there.error
    (away,) = run(source, tier=tier)
    assert away.error.startswith("ModuleNotFoundError")


def test_a_hash_is_the_same_in_every_run(tier: Tier) -> None:
    outputs = {run("print(hash('a'), set('abcdef'))", tier=tier)[0].output for _ in range(2)}
    assert len(outputs) == 1
    assert outputs != {""}


def test_whoever_runs_programs_may_stop_early_and_nothing_stays(tier: Tier) -> None:
    processes: list[int] = []
    programs = (Program(program_id=str(number), source="pass") for number in range(1_000_000))
    verdicts = run_programs(programs, timeout_seconds=5, workers=2, tier=tier, on_process=processes.append)
    assert next(verdicts).passed
    verdicts.close()  # type: ignore[attr-defined]
    assert processes
    assert not any(is_alive(process) for process in processes)


def test_a_run_that_is_killed_leaves_no_process_and_no_folder(tier: Tier, tmp_path: Path) -> None:
    code = f"""
import sys, tempfile
from tulu_pipeline.sandbox.pool import run_programs
from tulu_pipeline.sandbox.program import Program
source = "open('mark', 'w').write('x')\\nwhile True: pass"
programs = [Program(program_id=str(number), source=source) for number in range(8)]
say = lambda pid: print(pid, flush=True)
for verdict in run_programs(programs, timeout_seconds=60, workers=2, tier={tier!r}, on_process=say):
    pass
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        started = [int(process.stdout.readline()) for _ in range(2)]
        wait_for(lambda: len([pid for each in started for pid in below(each)]) >= 4)
        everything = [pid for each in started for pid in [each, *below(each)]]
        process.kill()
        wait_for(lambda: not any(is_alive(pid) for pid in everything))
    wait_for(lambda: list(tmp_path.iterdir()) == [])


def test_a_sandbox_that_dies_is_replaced_and_its_programs_run_again(
    tier: Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    processes: list[int] = []
    sources = ["pass", "import time\ntime.sleep(0.5)", "pass", "pass"]
    programs = [Program(program_id=str(number), source=source) for number, source in enumerate(sources)]
    found = []
    for verdict in run_programs(programs, timeout_seconds=20, workers=1, tier=tier, on_process=processes.append):
        found.append(verdict.program_id)
        if len(found) == 1:
            os.kill(processes[0], signal.SIGKILL)
    assert sorted(found) == ["0", "1", "2", "3"]
    assert len(processes) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_sandbox_that_dies_again_and_again_is_an_error(tier: Tier) -> None:
    def ended(process: int) -> None:
        os.kill(process, signal.SIGKILL)

    programs = [Program(program_id="0", source="import time\ntime.sleep(5)")]
    with pytest.raises(StageFailed, match="the sandbox"):
        list(run_programs(programs, timeout_seconds=20, workers=1, tier=tier, on_process=ended))


SNIPPETS = st.sampled_from(
    ["x = 1", "print('a' * 99_999)", "assert x", "raise ValueError(3)", "import os", "os._exit(3)", "while True: pass",
     "import threading; threading.Thread(target=print).start()", "exec('1/0')", "del __builtins__", "os.abort()",
     "import signal; signal.raise_signal(9)", "open('a', 'w').write('b')", "import sys; sys.stdout.close()",
     "sys.exit(1)", "globals().clear()", "os.close(1)", "os.closerange(0, 99)", "os.chdir('/')", "yield", "\x00",
     "é = 'ü'", "sys.setrecursionlimit(10**6); f = lambda n: f(n + 1); f(0)",
     "import faulthandler; faulthandler._sigsegv()"]
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(sources=st.lists(st.lists(st.one_of(SNIPPETS, st.text(max_size=20)), max_size=4).map("\n".join), max_size=6))
def test_whatever_a_program_is_it_gets_one_verdict_and_passes_only_if_it_can_be_compiled(sources: list[str]) -> None:
    tier = needed("namespaces")
    verdicts = run(*sources, tier=tier, timeout_seconds=0.5)
    assert [verdict.program_id for verdict in verdicts] == [str(number) for number in range(len(sources))]
    for source, verdict in zip(sources, verdicts, strict=True):
        if verdict.passed:
            compile(source, "<string>", "exec")


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def below(process: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in map(int, children):
        yield child
        yield from below(child)
