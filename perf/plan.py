"""A run with nothing to do over the paper's matrix, against Prefect's own cached rerun of as many tasks.

Both are whole processes on the same machine in the same run: ours is `tulu run … ` on a store where everything is
published; the peer is a flow of as many `@task(cache_policy=INPUTS, persist_result=True)` calls with a server up,
in its second run, so that every task is cached. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flows.graph import graph_of
from perf.matrix import EXPERIMENT
from tulu_pipeline.artifacts.manifest import Manifest, digest_of
from tulu_pipeline.artifacts.plan import Plan
from tulu_pipeline.artifacts.resolve import Resolver, SourcesLock
from tulu_pipeline.artifacts.store import Store

ROOT = Path(__file__).resolve().parents[1]
PEER = """
import sys
from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect.task_runners import ThreadPoolTaskRunner

@task(cache_policy=INPUTS, persist_result=True)
def cell(number: int) -> int:
    return number

@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def matrix(cells: int) -> int:
    states = [cell.submit(number, return_state=False) for number in range(cells)]
    return sum(state.result() for state in states)

assert matrix(int(sys.argv[1])) == sum(range(int(sys.argv[1])))
"""


def fill(store: Store) -> int:
    """Publish every artifact of the matrix with a payload of one small file; returns their number."""
    plan = Plan(graph_of(EXPERIMENT), store, Resolver(SourcesLock(Path(os.devnull))))
    for name, node in plan.nodes.items():
        assert node.key is not None, f"{name} waits"
        attempt = store.begin(node.artifact.stage.name, node.key)
        (attempt.out / "output.json").write_text(json.dumps({"name": name}))
        outputs, aux = store.seal(attempt)
        manifest = Manifest(
            key=node.key,
            name=name,
            stage=node.artifact.stage.name,
            identity=node.identity,
            payload=attempt.payload,
            digest=digest_of(outputs),
            outputs=outputs,
            aux=aux,
        )
        plan.made(name, store.publish(attempt, manifest))
    return len(plan.nodes)


def seconds(command: list[str], env: dict[str, str]) -> float:
    """Wall time of one whole process that must succeed."""
    started = time.monotonic()
    subprocess.run(command, env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of its own; yields the environment that points at it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{env['PREFECT_API_URL']}/health", timeout=2):
                break
            time.sleep(0.5)
        yield env
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Measure both and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="runs of each; the median counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store = home / "store"
        nodes = fill(Store(str(store)))
        tulu = str(Path(sys.executable).with_name("tulu"))
        ours_command = [tulu, "run", "perf/matrix.py:EXPERIMENT", "--store", str(store), "--json"]
        peer_file = home / "peer.py"
        peer_file.write_text(PEER)
        peer_command = [sys.executable, str(peer_file), str(nodes)]
        with prefect_server(home / "prefect") as env:
            seconds(peer_command, env)  # fills its cache
            ours, peer = [], []
            for _ in range(options.repeat):
                ours.append(seconds(ours_command, env))
                peer.append(seconds(peer_command, env))
    ours_seconds, peer_seconds = statistics.median(ours), statistics.median(peer)
    result = {
        "nodes": nodes,
        "repeat": options.repeat,
        "ours_seconds": round(ours_seconds, 3),
        "prefect_cached_seconds": round(peer_seconds, 3),
        "ratio_vs_prefect": round(peer_seconds / ours_seconds, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
