"""Judge: the raw replies of a judge to completions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.json_lines import write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.judging.false_evaluator import compare
from tulu_pipeline.judging.replies import Reply, verdict_of
from tulu_pipeline.specs.answers import answered_items
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item
from tulu_pipeline.specs.judge import Annotator, FalseEvaluator, Judge, Replay
from tulu_pipeline.specs.model_judge import ServedTruthJudges, ToxicityClassifier, TruthJudges

if TYPE_CHECKING:
    from tulu_pipeline.api.requests import ApiRequest


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
        case Replay():
            return _replay(job, ctx)
        case Annotator():
            return _annotate(job, ctx, job.params.judge)
        case ToxicityClassifier():
            from tasks.judge_models import classify_toxicity

            return classify_toxicity(job, ctx, job.params.judge, lambda: _answered(job))
        case TruthJudges():
            from tasks.judge_models import judge_truth

            return judge_truth(job, ctx, job.params.judge, lambda: _answered(job))
        case ServedTruthJudges():
            from tasks.judge_models import ask_truth

            return ask_truth(job, ctx, job.params.judge, lambda: _answered(job))
    raise AssertionError(f"{job.name}: nobody knows how to ask {job.params.judge}")


def _compare_unique_tokens(job: Job[JudgeParams], ctx: RunContext) -> Metrics:
    """Compare each completion with the reference output of its item."""
    from tulu_pipeline.inference.prompts import encode_prompts
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(job.input("tokenizer"))

    @lru_cache(maxsize=1)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(encode_prompts([text], tokenizer)[0])

    verdicts: dict[str, int] = {"win": 0, "tie": 0, "loss": 0}

    def replies() -> Iterator[Reply]:
        for done, (item, completion) in enumerate(_answered(job), 1):
            comparison = compare(completion.texts[0], str(item.gold), encode)
            verdicts[comparison.verdict] += 1
            ctx.progress(job.name, done, None, "items")
            reply: dict[str, Any] = asdict(comparison)
            yield Reply(item_id=item.item_id, reply=reply)

    write_lines(job.out / "replies.jsonl", replies())
    return dict(verdicts)


def _replay(job: Job[JudgeParams], ctx: RunContext) -> Metrics:
    """Find the stored annotation of each completion."""
    from tulu_pipeline.judging.replay import StoredAnnotations

    stored = StoredAnnotations(path for path in sorted(job.input("annotations").iterdir()) if path.is_file())

    def replies() -> Iterator[Reply]:
        for done, (item, completion) in enumerate(_answered(job), 1):
            ctx.progress(job.name, done, None, "items")
            reply = stored.reply(item.prompts[0], completion.texts[0], f"{job.name}, item `{item.item_id}`")
            yield Reply(item_id=item.item_id, reply=reply)

    return {"replies": write_lines(job.out / "replies.jsonl", replies())}


def _annotate(job: Job[JudgeParams], ctx: RunContext, judge: Annotator) -> Metrics:
    """Ask the annotator about each completion that differs from the reference's answer."""
    from tulu_pipeline.api.asking import ask_all
    from tulu_pipeline.api.client import connected
    from tulu_pipeline.judging.annotation import ask_for, reply_to
    from tulu_pipeline.judging.annotator import Template

    (folder,) = (job.input(name) for name in judge.downloads())
    path = folder / "prompt.txt"
    template = Template(path.read_text(encoding="utf-8"), str(path))
    requests: dict[str, ApiRequest] = {}
    for item, completion in _answered(job):
        requests |= ask_for(item, completion.texts[0], judge, template)
    with connected(judge.provider, ctx) as client:
        answers, spending = ask_all(client, requests, ctx, name=job.name)
    counts = {"win": 0, "tie": 0, "loss": 0, "unreadable": 0, "missing": 0, "flipped": 0}

    def replies() -> Iterator[Reply]:
        for item, completion in _answered(job):
            reply = reply_to(item, completion.texts[0], judge, answers)
            counts[str(verdict_of(reply))] += 1
            counts["flipped"] += bool(reply.get("flipped"))
            yield Reply(item_id=item.item_id, reply=reply)

    write_lines(job.out / "replies.jsonl", replies())
    models: dict[str, Any] = {"answered_by": sorted(spending.models), "replies_known": spending.known}
    return counts | models | {"cost_usd": spending.cost_usd}


def _answered(job: Job[JudgeParams]) -> Iterator[tuple[Item, Completion]]:
    benchmark = job.params.definition
    assert benchmark is not None, f"{job.name}: params carry no benchmark"
    return answered_items(benchmark, job.params.metric, job.input("benchmark"), job.input("completions"))


JUDGE = Stage(name="judge", version=2, params=JudgeParams, run=run_judge, env=("tokenizers",))
