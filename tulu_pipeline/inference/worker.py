"""The engine's process: `python -m tulu_pipeline.inference.worker job.json`.

Loads the model once and answers all benchmarks as one stream: while the last long completions of one are written, the
first requests of the next fill the room beside them. Every answer is recorded as it comes; what a former process
recorded is not asked again. Events on stdout:

    {"event": "loaded", "seconds"}
    {"event": "progress", "name", "done", "total", "note"}       samples
    {"event": "done", "name", "seconds", "generated_tokens", "note"}     every sample is recorded
    {"event": "failed", "name", "what", "where", "fix"}          it cannot be completed; the others go on
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tulu_pipeline.artifacts.child_side import emit, end_at_once, end_with_parent
from tulu_pipeline.artifacts.json_lines import from_line
from tulu_pipeline.errors import TuluError
from tulu_pipeline.inference.answering import Answering
from tulu_pipeline.inference.engine import Engine, Request, load_engine
from tulu_pipeline.inference.job import BenchmarkJob, WorkerJob
from tulu_pipeline.tokens.tokenizer import ChatTokenizer, load_tokenizer

_SEPARATOR = "/"


def run_worker(work: WorkerJob) -> None:
    """Answer every benchmark; one that cannot be completed is an event, and the others go on."""
    tokenizer = load_tokenizer(Path(work.engine.model))
    started = time.monotonic()
    engine = load_engine(work.engine)
    emit({"event": "loaded", "seconds": round(time.monotonic() - started, 2)})
    answer(work.jobs, engine, tokenizer)


def answer(jobs: Sequence[BenchmarkJob], engine: Engine, tokenizer: ChatTokenizer) -> None:
    """Answer what is not recorded yet, the benchmarks in their order; each is told of as soon as it is complete."""
    under_way: dict[str, Answering] = {}

    def requests() -> Iterator[Request]:
        for place, job in enumerate(jobs):
            try:
                answering = Answering(job, engine, tokenizer, prefix=f"{place}{_SEPARATOR}")
            except TuluError as error:
                emit({"event": "failed", "name": job.name, "what": error.what, "where": error.where, "fix": error.fix})
                continue
            if answering.is_complete:
                answering.finish()
                continue
            under_way[str(place)] = answering
            yield from answering.requests()

    for result in engine.submit(requests()):
        place, _, _ = result.request_id.partition(_SEPARATOR)
        answering = under_way[place]
        answering.take(result)
        if answering.is_complete:
            answering.finish()
            del under_way[place]


def main() -> None:
    """Read the job and run it."""
    end_with_parent()
    path = Path(sys.argv[1])
    work = from_line(path.read_bytes(), WorkerJob, str(path))
    run_worker(work)
    if not work.engine.gpu:
        end_at_once()  # all is recorded and synced, and there are no workers to end


if __name__ == "__main__":
    main()
