"""Score: completions (and a judge's replies) -> extraction and score per item, metrics with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.json_lines import read_lines, write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.errors import BadInput
from tulu_pipeline.judging.replies import read_replies
from tulu_pipeline.scoring.metrics import aggregate
from tulu_pipeline.specs.answers import answered_items
from tulu_pipeline.specs.benchmark import Benchmark, ItemScore


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreParams:
    """Which setting is scored; `definition` is the benchmark itself, its scorer version is what enters the key."""

    benchmark: str
    metric: str
    definition: Benchmark | None = execution_field(default=None)


def run_score(job: Job[ScoreParams], ctx: RunContext) -> Metrics:
    """Score each item, then aggregate.

    Raises:
        BadInput: a completion of an unknown item, or an item its judge has not replied to.
    """
    benchmark, metric = job.params.definition, job.params.metric
    assert benchmark is not None, f"{job.name}: params carry no benchmark"
    judged = "replies" in job.inputs
    replies = read_replies(job.input("replies") / "replies.jsonl") if judged else {}

    longer: dict[str, int] = {}
    length_controlled = benchmark.setting(metric).length_controlled

    def scores() -> Iterator[ItemScore]:
        for item, completion in answered_items(benchmark, metric, job.input("benchmark"), job.input("completions")):
            if judged and item.item_id not in replies:
                raise BadInput(f"no reply to item `{item.item_id}`", job.name, "judge anew: `--refresh judge`")
            if length_controlled:
                longer[item.item_id] = len(completion.texts[0]) - len(str(item.gold))
            yield benchmark.score(item, completion, replies.get(item.item_id))

    items = job.out / "items.jsonl"
    write_lines(items, scores())
    metrics = aggregate(read_lines(items, ItemScore), benchmark, metric, longer)
    (job.out / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return metrics


SCORE = Stage(name="score", version=3, params=ScoreParams, run=run_score)
