"""Ask: a served model x benchmark -> completions, as `generate` would have written them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.json_lines import write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.errors import BadInput, StageFailed
from tulu_pipeline.specs.api_model import ApiModel
from tulu_pipeline.specs.benchmark import Benchmark, Item, Sampling

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AskParams:
    """Who is asked what.

    Attributes:
        model: who.
        benchmark, metric: which setting.
        options: the setting's.
        sampling: the setting's; `stop` is never sent.
        item_limit: number of items asked, spread evenly over the groups; None asks all.
        definition: the benchmark itself; its prompt version is what enters the key.
    """

    model: ApiModel
    benchmark: str
    metric: str
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    sampling: Sampling
    item_limit: int | None = None
    definition: Benchmark | None = execution_field(default=None)


def run_ask(job: Job[AskParams], ctx: RunContext) -> Metrics:
    """Ask about every item; replies are recorded as they come, for every run that follows.

    Raises:
        MissingOnMachine: no SDK, address or key.
        StageFailed: items that were not answered; the others are recorded.
    """
    from tulu_pipeline.api.asking import ask_all
    from tulu_pipeline.api.client import connected
    from tulu_pipeline.api.requests import ApiError, Reply
    from tulu_pipeline.inference.served import completion_of, request_of

    params = job.params
    items = {item.item_id: item for item in _items(job)}
    if not items:
        raise BadInput("no items", job.name, "look at the benchmark's files")
    requests = {name: request_of(item, params.benchmark, params.model, params.sampling) for name, item in items.items()}
    with connected(params.model.provider, ctx) as client:
        answers, spending = ask_all(client, requests, ctx, name=job.name)
    errors = [f"`{name}`: {each.reason}" for name, each in answers.items() if isinstance(each, ApiError)]
    if errors:
        more = f"\nand {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise StageFailed(
            f"the model does not take {len(errors)} of {len(items)} items\n" + "\n".join(errors[:_SHOWN]) + more,
            job.name,
            "ask a model with a longer context, or leave the benchmark out for this one",
        )
    replies = {name: each for name, each in answers.items() if isinstance(each, Reply)}
    completions = (
        completion_of(item, params.benchmark, params.model, requests[name], replies[name])
        for name, item in items.items()
    )
    write_lines(job.out / "completions.jsonl", completions)
    return {
        "items": len(items),
        "prompt_tokens": sum(each.usage.prompt_tokens for each in replies.values()),
        "completion_tokens": sum(each.usage.completion_tokens for each in replies.values()),
        "truncated": sum(sample.finish_reason == "length" for each in replies.values() for sample in each.samples),
        "refused": sum(each.kind == "refused" for each in replies.values()),
        "answered_by": sorted(spending.models),
        "replies_known": spending.known,
        "cost_usd": spending.cost_usd,
    }


def _items(job: Job[AskParams]) -> Iterable[Item]:
    from functools import lru_cache

    from tulu_pipeline.inference.passages import cutter
    from tulu_pipeline.inference.selection import select
    from tulu_pipeline.inference.served import limited
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    params, benchmark = job.params, job.params.definition
    assert benchmark is not None, f"{job.name}: params carry no benchmark"
    files, setting = benchmark.files(job.input("benchmark")), benchmark.setting(params.metric)
    render = benchmark.render
    chosen = limited(
        lambda: select(lambda: benchmark.items(files, setting), params.item_limit),
        params.model.group_limits.get(params.metric),
    )
    if render is None:
        return chosen
    if "tokenizer" not in job.inputs:
        raise BadInput(
            f"{benchmark.title} cuts its passages by the model's tokens, and `{params.model.name}` has no tokenizer",
            job.name,
            "give the model a `tokenizer` to cut them by",
        )
    cut = lru_cache(maxsize=16)(cutter(load_tokenizer(job.input("tokenizer"))))
    return (render(item, cut) for item in chosen)


ASK = Stage(name="ask", version=2, params=AskParams, run=run_ask, deterministic=False, slot="api")
