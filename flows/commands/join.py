"""`tulu join`: let this machine take part in the finetunings of a run on another."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Endpoint = Annotated[str, Parameter(help="host:port, as the run on the first node tells it.")]
Name = Annotated[str, Parameter(help="what this node is called; else its host name.")]
WaitMinutes = Annotated[float, Parameter(help="end when there was nothing to take part in for so long.")]


def join(endpoint: Endpoint, *, name: Name = "", wait_minutes: WaitMinutes = 60.0) -> None:
    from tulu_pipeline.training.launching.launchers import split_endpoint
    from tulu_pipeline.training.launching.node import join as take_part

    address, port = split_endpoint(endpoint, "tulu join")
    take_part(address, port, name=name, wait_seconds=wait_minutes * 60)
