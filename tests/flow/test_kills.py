"""kill -9 at any moment: nothing torn, nothing repeated, nobody left behind, and the next run goes on by itself."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import toy_run
from fakes.waiting import wait_for
from toy_graph import Workshop

from tulu_pipeline.artifacts.lease import process_start
from tulu_pipeline.artifacts.plan import Status

RUN = [sys.executable, toy_run.__file__]


def start(folder: Path, number: int, *more: str) -> "subprocess.Popen[str]":
    """A run that has planned and begins."""
    command = [*RUN, str(folder), str(number), *more]
    with open(folder / "stderr", "a") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "planned\n", (folder / "stderr").read_text()
    return process


def result_of(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Of a run that ends by itself."""
    with process:
        assert process.stdout is not None
        result = json.loads(process.stdout.read())
    assert process.returncode == 0
    return dict(result)


def check_nobody_is_left(folder: Path) -> None:
    pids = [int(line) for line in (folder / "pids").read_text().split()] if (folder / "pids").exists() else []
    wait_for(lambda: not any(map(process_start, pids)), 5, lambda: [pid for pid in pids if process_start(pid)])
    (folder / "pids").unlink(missing_ok=True)


def check_what_is_there(shop: Workshop, number: int) -> set[str]:
    """Whole artifacts only; returns the names of those."""
    for manifest in shop.store.manifests():
        shop.store.verify(manifest)
    statuses = shop.statuses(toy_run.graph(shop, number))
    return {name for name, status in statuses.items() if status is Status.HIT}


def kill_often(folder: Path, kills: int, seed: int) -> None:
    """Run, kill at a random moment, look; whenever a run completes, begin another with other keys."""
    draw, shop, number, seconds = random.Random(seed), Workshop(folder), 0, 0.6
    there: set[str] = set()
    killed = 0
    while killed < kills:
        process = start(folder, number)
        began = time.monotonic()
        try:
            process.wait(draw.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        check_nobody_is_left(folder)
        now, ran = check_what_is_there(shop, number), set(shop.ran())
        assert there <= now, f"gone after a kill: {there - now}"
        assert not there & ran, f"made again though they were there: {there & ran}"
        there = now
        if process.returncode == 0:
            seconds = 0.5 * seconds + 0.6 * (time.monotonic() - began)
            assert result_of(process)["failed"] == []
            check_complete(shop, number)
            number, there = number + 1, set()
        assert process.stdout is not None
        process.stdout.close()
    result = result_of(start(folder, number))
    assert (result["failed"], result["blocked"]) == ([], [])
    check_complete(shop, number)
    check_nobody_is_left(folder)


def check_complete(shop: Workshop, number: int) -> None:
    assert set(shop.statuses(toy_run.graph(shop, number)).values()) == {Status.HIT}
    assert shop.text(toy_run.graph(shop, number)) == toy_run.text_of(number)
    assert not list((shop.folder / "store" / "work").rglob("*/steps")), "scratch of published artifacts is left"


def test_killed_runs_tear_nothing_repeat_nothing_and_go_on(tmp_path: Path) -> None:
    kill_often(tmp_path, kills=20, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_hundreds_of_killed_runs_tear_nothing_repeat_nothing_and_go_on(tmp_path: Path, seed: int) -> None:
    kill_often(tmp_path, kills=100, seed=int(os.environ.get("TULU_SEED", 1000)) + seed)


def test_killed_run_repeats_no_step_that_its_scratch_holds(tmp_path: Path) -> None:
    process = start(tmp_path, 0, "no-child")
    steps = wait_for(lambda: list((tmp_path / "store" / "work" / "generate").glob("*/steps")))
    process.kill()
    process.communicate()
    kept = {path.parent.name: path.read_text() for path in steps if path.exists()}
    assert kept
    shop = Workshop(tmp_path)
    assert not shop.run(toy_run.graph(shop, 0, child=False)).failed
    for key, text in kept.items():
        manifest = shop.store.manifest("generate", key)
        assert manifest is not None
        whole = (shop.store.path(manifest) / "steps").read_text()
        assert whole.startswith(text)
        assert whole.splitlines() == [str(step) for step in range(toy_run.STEPS)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_run_that_is_asked_to_end_leaves_nobody_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, 0)
    wait_for((tmp_path / "pids").exists)
    process.send_signal(number)
    process.communicate(timeout=20)
    check_nobody_is_left(tmp_path)
    assert result_of(start(tmp_path, 0))["failed"] == []
    check_complete(Workshop(tmp_path), 0)
