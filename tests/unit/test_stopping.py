"""SIGTERM to a run: children that can save have a while for it, the others end, and the second time all do."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.waiting import wait_for
from toy_graph import Workshop

from tulu_pipeline.artifacts.plan import Status

# A run of one stage, whose child ends well `seconds` after it is asked; and of another, which cannot be asked.
RUN = """
import signal, sys
from functools import partial
from pathlib import Path
from toy_graph import Workshop
from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.interrupts import Terminated, listen
from tulu_pipeline.artifacts.run import local_threads, run

folder, seconds, may_take = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
WAIT = '''
import pathlib, sys, time
folder, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2])
(folder / "started-asked").touch()
while not (folder / "stop").exists():
    time.sleep(0.01)
time.sleep(seconds)
(folder / "saved").touch()
'''
SLEEP = "import pathlib, sys, time; (pathlib.Path(sys.argv[1]) / 'started-other').touch(); time.sleep(600)"

def ask():
    (folder / "stop").touch()
    return may_take

def child(code, ask_to_stop, job):
    command = [sys.executable, "-I", "-S", "-c", code, str(folder), str(seconds)]
    run_child(command, ctx=shop.ctx, log=folder / "log", ask_to_stop=ask_to_stop)

shop = Workshop(folder)
shop.acts = {"write[a]": partial(child, WAIT, ask), "write[b]": partial(child, SLEEP, lambda: 0.0)}
plan = shop.plan(shop.node("join", "t", "", (shop.node("write", "a", "a"), shop.node("write", "b", "b"))))
listen()
try:
    with local_threads() as submit:
        run(plan, shop.store, shop.ctx, experiment="toy", submit=submit)
except Terminated:
    sys.exit(143)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(folder: Path, seconds: float, may_take: float) -> "subprocess.Popen[str]":
    """A run whose two children have started."""
    command = [sys.executable, "-c", RUN, str(folder), str(seconds), str(may_take)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (folder / "started-asked").exists() and (folder / "started-other").exists())
    return process


def test_a_child_that_is_asked_ends_in_its_own_time(tmp_path: Path) -> None:
    with start(tmp_path, 1.0, 60.0) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert (tmp_path / "saved").exists()
    shop = Workshop(tmp_path)
    graph = shop.node("join", "t", "", (shop.node("write", "a", "a"), shop.node("write", "b", "b")))
    assert Status.HIT not in {shop.statuses(graph)[name] for name in ("write[b]", "join[t]")}


@pytest.mark.parametrize("how", ["it takes too long", "SIGTERM once more", "Ctrl-C"])
def test_no_child_holds_the_run_up(tmp_path: Path, how: str) -> None:
    with start(tmp_path, 600.0, 0.5 if how == "it takes too long" else 600.0) as process:
        process.send_signal(signal.SIGTERM)
        if how != "it takes too long":
            wait_for((tmp_path / "stop").exists)
            process.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
        assert process.wait(30) in (130, 143)
    assert not (tmp_path / "saved").exists()
