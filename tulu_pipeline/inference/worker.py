"""The engine's process: `python -m tulu_pipeline.inference.worker job.json`.

Loads the model once and answers one benchmark after the other. Every answer is recorded as it comes; what a former
process recorded is not asked again. Events on stdout:

    {"event": "loaded", "seconds"}
    {"event": "progress", "name", "done", "total", "note"}       samples
    {"event": "done", "name", "seconds", "generated_tokens", "note"}     every sample is recorded
    {"event": "failed", "name", "what", "where", "fix"}          it cannot be completed; the next one follows
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tulu_pipeline.artifacts.append_file import AppendFile
from tulu_pipeline.artifacts.child_side import emit, end_with_parent
from tulu_pipeline.artifacts.json_lines import from_line, read_lines
from tulu_pipeline.errors import StageFailed, TuluError
from tulu_pipeline.inference.engine import Engine, Failed, Finished, Request, load_engine
from tulu_pipeline.inference.job import BenchmarkJob, WorkerJob
from tulu_pipeline.inference.prompts import Prepared, Room, choice_ids, prepare
from tulu_pipeline.inference.records import Question, Record, answered
from tulu_pipeline.inference.sampling import request_seed
from tulu_pipeline.specs.benchmark import Sampling
from tulu_pipeline.tokens.tokenizer import ChatTokenizer, load_tokenizer

_REPORT_SECONDS = 0.5
_SHOWN = 10


def run_worker(work: WorkerJob) -> None:
    """Answer every benchmark; one that cannot be completed is an event, and the next one follows."""
    tokenizer = load_tokenizer(Path(work.engine.model))
    started = time.monotonic()
    engine = load_engine(work.engine)
    emit({"event": "loaded", "seconds": round(time.monotonic() - started, 2)})
    for job in work.jobs:
        started = time.monotonic()
        try:
            generated = answer(job, engine, tokenizer)
        except TuluError as error:
            emit({"event": "failed", "name": job.name, "what": error.what, "where": error.where, "fix": error.fix})
        else:
            seconds = round(time.monotonic() - started, 2)
            done = {"event": "done", "name": job.name, "seconds": seconds, "generated_tokens": generated}
            emit(done | {"note": engine.note})


def answer(job: BenchmarkJob, engine: Engine, tokenizer: ChatTokenizer) -> int:
    """Answer what is not recorded yet; the number of tokens generated now.

    Raises:
        BadInput: prompts that do not fit, before anything is generated.
        StageFailed: requests that failed; the others are recorded.
    """
    questions = list(read_lines(job.questions, Question))
    known = answered(job.records, {question.item_id: question.digest() for question in questions})
    room = Room(
        context_tokens=engine.context_tokens,
        max_new_tokens=job.sampling.max_new_tokens,
        max_prompt_tokens=job.max_prompt_tokens,
    )
    samples = range(job.sampling.samples)
    open_questions = (each for each in questions if any((each.item_id, sample) not in known for sample in samples))
    prepared = {each.question.item_id: each for each in prepare(open_questions, tokenizer, room)}
    wanted = [(each, sample) for each in prepared.values() for sample in samples
              if (each.question.item_id, sample) not in known]  # fmt: skip
    asked = {_request_id(each, sample): (each, sample) for each, sample in wanted}
    progress = _Progress(job.name, engine, done=len(known), total=len(questions) * len(samples))
    failures: list[str] = []
    with AppendFile(job.records, Record) as records:
        for result in engine.submit(_requests(asked, job.sampling, tokenizer)):
            each, sample = asked[result.request_id]
            if isinstance(result, Failed):
                failures.append(f"`{each.question.item_id}`: {result.reason}")
            else:
                records.add(_record(each, sample, result))
                progress.count(result.completion_tokens)
    progress.report()
    if failures:
        more = f"\nand {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        raise StageFailed(
            f"the engine failed on {len(failures)} of {len(asked)} requests\n" + "\n".join(failures[:_SHOWN]) + more,
            job.name,
            "run the same command again: the others are kept",
        )
    return progress.tokens


def _requests(
    asked: dict[str, tuple[Prepared, int]], sampling: Sampling, tokenizer: ChatTokenizer
) -> Iterator[Request]:
    letters: dict[tuple[str, ...], dict[str, int]] = {}
    for request_id, (each, sample) in asked.items():
        choices = each.question.choices
        if choices not in letters:
            letters[choices] = choice_ids(choices, tokenizer)
        yield Request(
            request_id=request_id,
            prompt_ids=each.prompt_ids,
            max_new_tokens=each.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=sampling.stop,
            seed=request_seed(each.question.item_id, sample, sampling),
            choice_ids=letters[choices],
        )


def _request_id(each: Prepared, sample: int) -> str:
    return f"{each.question.item_id}#{sample}"


def _record(each: Prepared, sample: int, result: Finished) -> Record:
    return Record(
        item_id=each.question.item_id,
        question_sha256=each.question_sha256,
        sample=sample,
        prompt_index=each.prompt_index,
        prompt_tokens=len(each.prompt_ids),
        text=result.text,
        finish_reason=result.finish_reason,
        completion_tokens=result.completion_tokens,
        choice_logprobs=result.choice_logprobs,
    )


class _Progress:
    """Samples done, told at most twice a second."""

    def __init__(self, name: str, engine: Engine, *, done: int, total: int) -> None:
        self.name, self.done, self.total, self.tokens = name, done, total, 0
        self._engine = engine
        self._started = self._told = time.monotonic()

    def count(self, tokens: int) -> None:
        self.done += 1
        self.tokens += tokens
        if time.monotonic() - self._told > _REPORT_SECONDS:
            self.report()

    def report(self) -> None:
        self._told = time.monotonic()
        rate = self.tokens / max(self._told - self._started, 1e-6)
        note = "; ".join(filter(None, [f"{rate:,.0f} tokens/s" if self.tokens else "", self._engine.note]))
        emit({"event": "progress", "name": self.name, "done": self.done, "total": self.total, "note": note})


def main() -> None:
    """Read the job and run it."""
    end_with_parent()
    path = Path(sys.argv[1])
    work = from_line(path.read_bytes(), WorkerJob, str(path))
    run_worker(work)
    if not work.engine.gpu:
        # All is recorded and synced, and there are no workers to end: taking torch and vLLM down would cost seconds.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
