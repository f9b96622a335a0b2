"""Download: source files, verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tulu_pipeline.artifacts.fetch import fetch
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadParams:
    """Nothing but the sources decides what comes."""


def run_download(job: Job[DownloadParams], ctx: RunContext) -> Metrics:
    """Fetch each source under its own name.

    Raises:
        HashMismatch: wrong bytes. StageFailed: it cannot be had. BadInput: a local file is not there.
    """
    for index, (name, source) in enumerate(job.sources.items(), 1):
        note = name if len(job.sources) == 1 else f"{name} ({index} of {len(job.sources)})"

        def report(done: int, total: int | None, note: str = note) -> None:
            ctx.progress(job.name, done, total, "B", note)

        fetch(source, name, job.out, ctx.settings, report, wanted=job.pinned.get(name), keep=job.work)
    files: list[Any] = [path for path in job.out.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


DOWNLOAD = Stage(name="download", version=1, params=DownloadParams, run=run_download)
