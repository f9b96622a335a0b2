"""A process that runs a toy graph: `python toy_run.py <folder> <round>`. Made to be killed, or to have company.

It prints `planned` before it runs anything, and the run's JSON at its end. Its graph has plain stages, a batch with
resumable scratch, and a stage whose child starts descendants that try to slip away and note their process ids.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from toy_graph import Workshop, append_line

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.stage import Job

STEPS = 4
CHILD = """
import os, signal, sys, time
def note():
    descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{os.getpid()}\\n".encode())
if not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    note()
    time.sleep(600)
note()
time.sleep(0.1)
"""


def graph(shop: Workshop, number: int, *, child: bool = True) -> Artifact:
    """Nine artifacts in four layers; another `number` has other keys throughout."""
    raws = [shop.node("write", name, f"{name}{number}") for name in "abc"]
    batch = shop.stage("generate", batch=True)
    batched = [shop.node(batch, name, f"-{name}", (raw,), group="model") for name, raw in zip("abc", raws, strict=True)]
    trained = shop.node("train", "t", "=", raws)
    joined = shop.node("join", "all", "+", (*batched, trained))
    for node in (*raws, joined):
        shop.acts[node.name] = write_much
    for node in batched:
        shop.acts[node.name] = go_on
    if child:
        shop.acts[trained.name] = lambda job: start_child(shop, job)
    return shop.node("table", "t", "!", (joined,))


def text_of(number: int) -> str:
    """What the table says at the end."""
    return "".join(f"{name}{number}-{name}" for name in "abc") + "".join(f"{name}{number}" for name in "abc") + "=+!"


def write_much(job: Job[Any]) -> None:
    for index in range(5):
        (job.out / f"part-{index}").write_bytes(bytes([index]) * 20_000)
        time.sleep(0.002)
    (job.aux / "log").write_text(job.name)


def go_on(job: Job[Any]) -> None:
    """Steps that a later try does not repeat."""
    done = len((job.work / "steps").read_text().splitlines()) if (job.work / "steps").exists() else 0
    for step in range(done, STEPS):
        time.sleep(0.01)
        append_line(job.work / "steps", str(step))
    (job.out / "steps").write_text((job.work / "steps").read_text())


def start_child(shop: Workshop, job: Job[Any]) -> None:
    command = [sys.executable, "-I", "-S", "-c", CHILD, str(shop.folder / "pids")]
    run_child(command, ctx=shop.ctx, log=job.aux / "log")


def main() -> None:
    shop = Workshop(Path(sys.argv[1]))
    plan = shop.plan(graph(shop, int(sys.argv[2]), child="no-child" not in sys.argv))
    print("planned", flush=True)
    print(json.dumps(shop.carry_out(plan).to_json()), flush=True)


if __name__ == "__main__":
    main()
