"""A real Prefect server for the flow tests of one worker process, with a home of its own."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """API URL of a running server; the Prefect of this process uses it meanwhile."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from flows.private_server import private_server
    from tasks.prefect_ui import send_what_waits

    home = tmp_path_factory.mktemp("prefect")
    before = os.environ.get("PREFECT_HOME")
    os.environ["PREFECT_HOME"] = str(home)
    try:
        with private_server() as url, temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: home}):
            yield url
            send_what_waits()
    finally:
        if before is None:
            del os.environ["PREFECT_HOME"]
        else:
            os.environ["PREFECT_HOME"] = before
