"""One benchmark on its way through the engine: what is still asked, and what came."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tulu_pipeline.artifacts.append_file import AppendFile
from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.inference.engine import Engine, Failed, Finished, Request
from tulu_pipeline.inference.job import BenchmarkJob
from tulu_pipeline.inference.prompts import Prepared, Room, choice_ids, prepare
from tulu_pipeline.inference.records import Question, Record, answered
from tulu_pipeline.inference.sampling import request_seed
from tulu_pipeline.tokens.tokenizer import ChatTokenizer

_REPORT_SECONDS = 0.5
_SHOWN = 10


class Answering:
    """The samples of one benchmark that are not recorded yet.

    Args:
        job: the benchmark.
        engine: that is asked.
        tokenizer: the model's.
        prefix: of its requests' ids, of no other benchmark that the engine is asked.

    Raises:
        BadInput: prompts that do not fit or letters that share a token, before anything is generated.
    """

    def __init__(self, job: BenchmarkJob, engine: Engine, tokenizer: ChatTokenizer, prefix: str) -> None:
        self.name = job.name
        self._sampling, self._engine = job.sampling, engine
        self._started = self._told = time.monotonic()
        questions = list(read_lines(job.questions, Question))
        known = answered(job.records, {question.item_id: question.digest() for question in questions})
        samples = range(job.sampling.samples)
        room = Room(
            context_tokens=engine.context_tokens,
            max_new_tokens=job.sampling.max_new_tokens,
            max_prompt_tokens=job.max_prompt_tokens,
        )
        unanswered = (each for each in questions if any((each.item_id, sample) not in known for sample in samples))
        self._open: dict[str, tuple[Prepared, int]] = {
            f"{prefix}{each.question.item_id}#{sample}": (each, sample)
            for each in prepare(unanswered, tokenizer, room)
            for sample in samples
            if (each.question.item_id, sample) not in known
        }
        choices = {each.question.choices for each, _ in self._open.values()}
        self._choice_ids = {letters: choice_ids(letters, tokenizer) for letters in choices}
        self._asked, self._done, self._total = len(self._open), len(known), len(questions) * len(samples)
        self._generated_tokens = 0
        self._failures: list[str] = []
        self._records = AppendFile(job.records, Record)

    @property
    def is_complete(self) -> bool:
        """Whether everything came, be it as a failure."""
        return not self._open

    def requests(self) -> Iterator[Request]:
        """What the engine is asked."""
        for request_id, (each, sample) in list(self._open.items()):
            yield Request(
                request_id=request_id,
                prompt_ids=each.prompt_ids,
                max_new_tokens=each.max_new_tokens,
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                stop=self._sampling.stop,
                seed=request_seed(each.question.item_id, sample, self._sampling),
                choice_ids=self._choice_ids[each.question.choices],
            )

    def take(self, result: Finished | Failed) -> None:
        """Record what came for one of `requests`."""
        each, sample = self._open.pop(result.request_id)
        if isinstance(result, Failed):
            self._failures.append(f"`{each.question.item_id}`: {result.reason}")
            return
        self._records.add(_record(each, sample, result))
        self._done += 1
        self._generated_tokens += result.completion_tokens
        if time.monotonic() - self._told > _REPORT_SECONDS:
            self._report()

    def finish(self) -> None:
        """Close the records and tell how it ended."""
        self._records.close()
        self._report()
        if self._failures:
            more = f"\nand {len(self._failures) - _SHOWN} more" if len(self._failures) > _SHOWN else ""
            what = f"the engine failed on {len(self._failures)} of {self._asked} requests\n"
            what += "\n".join(self._failures[:_SHOWN]) + more
            fix = "run the same command again: the others are kept"
            emit({"event": "failed", "name": self.name, "what": what, "where": self.name, "fix": fix})
            return
        seconds = round(time.monotonic() - self._started, 2)
        done = {"event": "done", "name": self.name, "seconds": seconds, "generated_tokens": self._generated_tokens}
        emit(done | {"note": self._engine.note})

    def _report(self) -> None:
        self._told = time.monotonic()
        rate = self._generated_tokens / max(self._told - self._started, 1e-6)
        told = f"{rate:,.0f} tokens/s" if self._generated_tokens else ""
        note = "; ".join(filter(None, [told, self._engine.note]))
        emit({"event": "progress", "name": self.name, "done": self._done, "total": self._total, "note": note})


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
