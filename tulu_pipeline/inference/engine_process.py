"""The engine's process, from the run's side: started, heard, and started smaller where memory ran out."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.json_lines import to_line
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.inference.engine import engine_environment
from tulu_pipeline.inference.job import WorkerJob
from tulu_pipeline.memory import tells_of_memory

_log = logging.getLogger(__name__)

_FEWER = (64, 32, 16)  # sequences at a time
_READ_BYTES = 65_536


def run_engine(
    work: WorkerJob, *, ctx: RunContext, description: Path, log: Path, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """Answer `work` in a process of its own.

    Where vLLM, once loaded, runs out of memory it is started again with 64 sequences at a time, then 32, then 16; what
    is recorded is not asked again. The transformers engine halves its batches by itself.

    Args:
        work: what is asked.
        ctx: the run.
        description: file that tells the process of `work`.
        log: file that its output is appended to.
        on_event: called with each of its events (see `inference.worker`).

    Raises:
        StageFailed: the process ended with a code.
    """
    finished: set[str] = set()
    loaded = False

    def hear(event: dict[str, Any]) -> None:
        nonlocal loaded
        loaded = loaded or event["event"] == "loaded"
        if event["event"] in ("done", "failed"):
            finished.add(event["name"])
        on_event(event)

    command = [sys.executable, "-m", "tulu_pipeline.inference.worker", str(description)]
    for sequences in (*_FEWER, None):
        description.write_bytes(to_line(work))
        before, loaded = log.stat().st_size if log.exists() else 0, False
        try:
            run_child(command, ctx=ctx, log=log, env=engine_environment(work.engine), on_event=hear)
            return
        except StageFailed:
            is_vllm = work.engine.engine == "vllm"
            last = sequences is None or all(job.name in finished for job in work.jobs)
            if last or not (is_vllm and loaded and tells_of_memory(_end(log, before))):
                raise
        _log.warning("%s: out of memory, starting again with %d sequences at a time", log, sequences)
        work = dataclasses.replace(
            work,
            engine=dataclasses.replace(work.engine, sequences=sequences),
            jobs=tuple(job for job in work.jobs if job.name not in finished),
        )


def _end(log: Path, since: int) -> str:
    """The end of what was logged behind the byte `since`."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(since, size - _READ_BYTES))
        return file.read().decode(errors="replace")
