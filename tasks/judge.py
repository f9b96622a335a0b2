"""Judge: the raw replies of a judge to completions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.json_lines import write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.judging.false_evaluator import compare
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.specs.answers import answered_items
from tulu_pipeline.specs.benchmark import Benchmark
from tulu_pipeline.specs.judge import FalseEvaluator, Judge


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeParams:
    """Who judges which completions.

    Attributes:
        benchmark, metric: which setting.
        judge: who replies; one that counts tokens does so with the `tokenizer` input.
        definition: the benchmark itself; its prompt version is what enters the key.
    """

    benchmark: str
    metric: str
    judge: Judge
    definition: Benchmark | None = execution_field(default=None)


def run_judge(job: Job[JudgeParams], ctx: RunContext) -> Metrics:
    """Write the judge's reply to each completion."""
    match job.params.judge:
        case FalseEvaluator():
            return _compare_unique_tokens(job, ctx)
    raise AssertionError(f"{job.name}: nobody knows how to ask {job.params.judge}")


def _compare_unique_tokens(job: Job[JudgeParams], ctx: RunContext) -> Metrics:
    """Compare each completion with the reference output of its item."""
    from tulu_pipeline.inference.prompts import encode_prompts
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    benchmark = job.params.definition
    assert benchmark is not None, f"{job.name}: params carry no benchmark"
    tokenizer = load_tokenizer(job.input("tokenizer"))

    @lru_cache(maxsize=1)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(encode_prompts([text], tokenizer)[0])

    verdicts: dict[str, int] = {"win": 0, "tie": 0, "loss": 0}

    def replies() -> Iterator[Reply]:
        pairs = answered_items(benchmark, job.params.metric, job.input("benchmark"), job.input("completions"))
        for done, (item, completion) in enumerate(pairs, 1):
            comparison = compare(completion.texts[0], str(item.gold), encode)
            verdicts[comparison.verdict] += 1
            ctx.progress(job.name, done, None, "items")
            reply: dict[str, Any] = asdict(comparison)
            yield Reply(item_id=item.item_id, reply=reply)

    write_lines(job.out / "replies.jsonl", replies())
    return dict(verdicts)


JUDGE = Stage(name="judge", version=2, params=JudgeParams, run=run_judge, env=("tokenizers",))
