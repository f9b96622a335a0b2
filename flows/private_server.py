"""A Prefect server for the length of one run, for those who have none.

Prefect starts a temporary server by itself, but a run that is killed leaves that one behind, and starting it imports
the whole server into the run (5 s). This is `prefect server start` under the supervisor that ends it with the run.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tulu_pipeline.artifacts.children import supervised, tail
from tulu_pipeline.errors import StageFailed

START_TIMEOUT_SECONDS = 180.0
_GRACE_SECONDS = 5.0
_TRIES = 3  # another process may take the free port before the server does
_ENVIRONMENT = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # In memory, the default, a server that is killed forgets who holds a limit, and the slot is never free again.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


@contextlib.contextmanager
def private_server() -> Iterator[str]:
    """A server on a free local port, over the same database as Prefect's own (`PREFECT_HOME`).

    Yields:
        Its API URL, once it answers.

    Raises:
        StageFailed: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="tulu-prefect-") as folder, contextlib.ExitStack() as stack:
        log = Path(folder, "server.log")
        for _ in range(_TRIES):
            server = stack.enter_context(contextlib.ExitStack())
            port = _free_port()
            process = server.enter_context(_server(port, log))
            url = f"http://127.0.0.1:{port}/api"
            if _answers(url, process):
                try:
                    yield url
                finally:
                    process.terminate()  # and a grace, to write what it has
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_GRACE_SECONDS)
                return
            server.close()
            if "address already in use" not in log.read_text(errors="replace"):
                break
        raise StageFailed(
            f"no Prefect server starts here:\n{tail(log)}",
            "prefect server start",
            "run with `--runner local`, or set PREFECT_API_URL to a server that runs",
        )


@contextlib.contextmanager
def _server(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (
        open(log, "ab", buffering=0) as output,
        supervised(command, stdout=output, stderr=output, env=_ENVIRONMENT) as process,
    ):
        yield process


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server at `url` is healthy; False when its process has ended or time is up."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success:
                return True
        time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
