"""Several processes run one plan on one store: each stage runs once, whoever does it."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import toy_run
from fakes.waiting import wait_for
from toy_graph import Workshop

from tulu_pipeline.artifacts.plan import Status

RUN = [sys.executable, toy_run.__file__]


def start(folder: Path, number: int = 0) -> "subprocess.Popen[str]":
    return subprocess.Popen([*RUN, str(folder), str(number), "no-child"], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("processes", [2, 8])
def test_each_stage_runs_once_among_processes(tmp_path: Path, processes: int) -> None:
    shop = Workshop(tmp_path)
    names = shop.statuses(toy_run.graph(shop, 0)).keys()
    results = []
    for process in [start(tmp_path) for _ in range(processes)]:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        results.append(json.loads(out.removeprefix("planned\n")))
    assert Counter(shop.ran()) == dict.fromkeys(names, 1)
    assert Counter(name for result in results for name in result["executed"]) == dict.fromkeys(names, 1)
    for result in results:
        assert (result["failed"], result["blocked"]) == ([], [])
        assert len(result["executed"]) + len(result["found"]) + result["hit"] == len(names)
    assert set(shop.statuses(toy_run.graph(shop, 0)).values()) == {Status.HIT}
    assert shop.text(toy_run.graph(shop, 0)) == toy_run.text_of(0)
    for manifest in shop.store.manifests():
        shop.store.verify(manifest)


def test_others_go_on_at_once_where_one_of_them_is_killed(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    names = shop.statuses(toy_run.graph(shop, 0)).keys()
    running = [start(tmp_path) for _ in range(3)]
    wait_for(shop.log.exists)
    pids = [json.loads(path.read_text())["pid"] for path in (tmp_path / "store" / "leases").glob("*/1.json")]
    victim = next(process for process in running if process.pid == pids[0])
    victim.kill()
    killed = time.monotonic()
    for process in running:
        out, _ = process.communicate(timeout=120)
        if process is not victim:
            assert process.returncode == 0
            assert json.loads(out.removeprefix("planned\n"))["failed"] == []
    assert time.monotonic() - killed < 30
    assert max(Counter(shop.ran()).values()) <= 2
    assert set(shop.statuses(toy_run.graph(shop, 0)).values()) == {Status.HIT}
    assert len(list(shop.store.manifests())) == len(names)


@pytest.mark.soak
def test_each_stage_runs_once_among_processes_time_after_time(tmp_path: Path) -> None:
    for number in range(60):
        shop = Workshop(tmp_path)
        for process in [start(tmp_path, number) for _ in range(8)]:
            process.communicate(timeout=120)
            assert process.returncode == 0
        assert set(Counter(shop.ran()).values()) == {1}
