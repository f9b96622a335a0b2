"""Generate: checkpoint x benchmark -> completions, one engine process for all benchmarks of a checkpoint."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.canonical import added_field, execution_field
from tulu_pipeline.artifacts.json_lines import read_lines, to_line, write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.options import Template
from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.errors import BadInput, StageFailed
from tulu_pipeline.inference.engine import (
    Dtype,
    EngineName,
    EngineSettings,
    Quantization,
    what_lacks,
)
from tulu_pipeline.inference.engine_process import run_engine
from tulu_pipeline.inference.job import BenchmarkJob, WorkerJob
from tulu_pipeline.inference.records import Question, answered, completions
from tulu_pipeline.inference.selection import select
from tulu_pipeline.profile import count_gpus
from tulu_pipeline.specs.benchmark import Benchmark, Item, Sampling
from tulu_pipeline.tokens.control_tokens import Prompt

# Cut passages; an exemplar's is shown in every prompt of its language.
_TEXTS_KEPT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateParams:
    """How one benchmark is asked.

    Attributes:
        benchmark, metric: which setting.
        options: the setting's.
        sampling: what holds for this model; `stop` alone, `stop_tuned` is empty.
        tuned: whether prompts are in a chat format.
        engine, engine_dtype: what generates.
        item_limit: number of items asked, spread evenly over the groups; None asks all.
        definition: the benchmark itself; its prompt version is what enters the key.
        template: the chat format; a checkpoint is asked as it was taught.
        quantization: of the weights.
    """

    benchmark: str
    metric: str
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    sampling: Sampling
    tuned: bool
    engine: EngineName
    engine_dtype: Dtype
    item_limit: int | None = None
    definition: Benchmark | None = execution_field(default=None)
    template: Template = added_field(default="tulu")
    quantization: Quantization = added_field(default="none")

    def __post_init__(self) -> None:
        if self.engine == "vllm" and self.quantization == "int8":
            raise BadInput(
                f"vLLM does not load weights as `{self.quantization}`",
                f"{self.benchmark}/{self.metric}",
                "engine `transformers`",
            )


def generate_params(
    benchmark: Benchmark,
    metric: str,
    *,
    tuned: bool,
    engine: EngineName,
    engine_dtype: Dtype,
    item_limit: int | None = None,
    max_new_tokens: int | None = None,
    samples: int | None = None,
    template: Template = "tulu",
    quantization: Quantization = "none",
) -> GenerateParams:
    """The parameters of a setting.

    `max_new_tokens` and `samples` cap the setting's own numbers, `template` holds where `tuned`.

    Raises:
        NotFound: no such setting.
        BadInput: weights that the engine does not load so.
    """
    setting = benchmark.setting(metric)
    capped = setting.sampling.capped(max_new_tokens, samples)
    return GenerateParams(
        benchmark=benchmark.name,
        metric=metric,
        options=setting.options,
        sampling=dataclasses.replace(capped, stop=capped.stop_tuned if tuned else capped.stop, stop_tuned=()),
        tuned=tuned,
        engine=engine,
        engine_dtype=engine_dtype,
        item_limit=item_limit,
        definition=benchmark,
        template=template if tuned else "tulu",
        quantization=quantization,
    )


def run_generate(jobs: Sequence[Job[GenerateParams]], ctx: RunContext) -> None:
    """Ask one checkpoint all `jobs`, cheapest first; publish each as soon as it is complete.

    Raises:
        MissingOnMachine: the engine cannot be loaded here.
        StageFailed: the engine died, or requests failed; what was answered is kept and not asked again.
        BadInput: prompts that do not fit the model.
    """
    settings = _engine_settings(jobs, ctx)
    works = sorted((_Work.prepare(job) for job in jobs), key=_Work.expected_tokens)
    unfinished = [work for work in works if work.is_unfinished()]
    for work in works:
        if work not in unfinished:
            work.publish({})
    if not unfinished:
        return
    if lack := what_lacks(settings.engine, gpu=settings.gpu, quantization=settings.quantization):
        raise lack
    # The last job is published after the process has ended: its work folder holds the log until then.
    last = unfinished[-1]
    log = last.job.work / "engine.log"
    asked = WorkerJob(engine=settings, jobs=tuple(work.description() for work in unfinished))
    by_name = {work.job.name: work for work in unfinished}
    finished: dict[str, Metrics] = {}
    failures: dict[str, Mapping[str, str]] = {}

    def on_event(event: dict[str, Any]) -> None:
        match event["event"]:
            case "progress":
                ctx.progress(event["name"], event["done"], event["total"], "samples", event["note"])
            case "failed":
                failures[event["name"]] = event
            case "done":
                metrics = {"engine_seconds": event["seconds"], "generated_tokens": event["generated_tokens"]}
                if event["note"]:
                    metrics["engine_note"] = event["note"]
                finished[event["name"]] = metrics
                if event["name"] != last.job.name:
                    by_name[event["name"]].publish(metrics, log)

    run_engine(asked, ctx=ctx, description=last.job.work / "job.json", log=log, on_event=on_event)
    if last.job.name in finished:
        last.publish(finished[last.job.name], log)
    _raise_first(failures, [work.job.name for work in unfinished if work.job.name not in finished | failures])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A job and its files: the questions and what was answered so far."""

    job: Job[GenerateParams]
    questions: Path
    records: Path
    items: int

    @staticmethod
    def prepare(job: Job[GenerateParams]) -> _Work:
        job.work.mkdir(parents=True, exist_ok=True)
        questions = job.work / "questions.jsonl"
        items = write_lines(questions, _questions(job))
        if not items:
            raise BadInput("no items", job.name, "look at the benchmark's files")
        return _Work(job=job, questions=questions, records=job.work / "records.jsonl", items=items)

    def expected_tokens(self) -> int:
        sampling = self.job.params.sampling
        return self.items * sampling.samples * sampling.max_new_tokens

    def is_unfinished(self) -> bool:
        digests = {question.item_id: question.digest() for question in read_lines(self.questions, Question)}
        return len(answered(self.records, digests)) < self.items * self.job.params.sampling.samples

    def description(self) -> BenchmarkJob:
        limit = self.job.params.options.get("max_prompt_tokens")
        return BenchmarkJob(
            name=self.job.name,
            questions=self.questions,
            records=self.records,
            sampling=self.job.params.sampling,
            max_prompt_tokens=None if limit is None else int(limit),
        )

    def publish(self, metrics: Metrics, log: Path | None = None) -> None:
        """Completions in the order of the items, from the records."""
        prompt_tokens = completion_tokens = truncated = 0
        with (self.job.out / "completions.jsonl").open("wb") as lines:
            for completion in completions(self.questions, self.records, self.job.params.sampling.samples):
                lines.write(to_line(completion))
                prompt_tokens += completion.prompt_tokens
                completion_tokens += sum(completion.completion_tokens)
                truncated += completion.finish_reasons.count("length")
        if log is not None and log.exists():
            shutil.copyfile(log, self.job.aux / "engine.log")
        counts = {
            "items": self.items,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "truncated": truncated,
        }
        self.job.publish(counts | dict(metrics))


def _questions(job: Job[GenerateParams]) -> Iterator[Question]:
    params = job.params
    benchmark = params.definition
    assert benchmark is not None, f"{job.name}: params carry no benchmark"
    files, setting = benchmark.files(job.input("benchmark")), benchmark.setting(params.metric)
    render, with_prompts = _renderer(job), _with_prompts(job, benchmark)
    seen: set[str] = set()
    for item in map(with_prompts, select(lambda: benchmark.items(files, setting), params.item_limit)):
        if item.item_id in seen:
            raise BadInput(f"two items are called `{item.item_id}`", job.name, "give each item an id of its own")
        seen.add(item.item_id)
        cue = item.cue if item.cue_tuned is None or not params.tuned else item.cue_tuned
        lead = item.lead_tuned if params.tuned else ""
        prompts = [render(lead + text, cue) if item.chat else _as_it_stands(text, cue) for text in item.prompts]
        controls = tuple(prompt.controls for prompt in prompts)
        yield Question(
            item_id=item.item_id,
            prompts=tuple(prompt.text for prompt in prompts),
            choices=item.choices,
            controls=controls if any(controls) else (),
        )


def _as_it_stands(text: str, cue: str) -> Prompt:
    return Prompt(text=render_prompt(text, cue, tuned=False))


def _with_prompts(job: Job[GenerateParams], benchmark: Benchmark) -> Callable[[Item], Item]:
    """From an item to itself with its prompts, where those follow from the model's tokenizer."""
    render = benchmark.render
    if render is None:
        return lambda item: item
    from tulu_pipeline.inference.passages import cutter
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    cut = lru_cache(maxsize=_TEXTS_KEPT)(cutter(load_tokenizer(job.input("model"))))
    return lambda item: render(item, cut)


def _renderer(job: Job[GenerateParams]) -> Callable[[str, str], Prompt]:
    """From a user's text and a cue to a prompt."""
    if not job.params.tuned:
        return _as_it_stands
    if job.params.template == "tulu":
        return lambda text, cue: Prompt(text=render_prompt(text, cue, tuned=True))
    from tulu_pipeline.tokens.own_template import load_own_template
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    return load_own_template(job.input("model"), load_tokenizer(job.input("model"))).prompt


def _engine_settings(jobs: Sequence[Job[GenerateParams]], ctx: RunContext) -> EngineSettings:
    first = jobs[0]
    for job in jobs:
        if _wanted(job) != _wanted(first):
            raise BadInput(
                "jobs of one group want different engines or models", job.name, "group them by checkpoint and engine"
            )
    gpus = count_gpus()
    return EngineSettings(
        engine=first.params.engine,
        model=str(first.input("model")),
        dtype=first.params.engine_dtype,
        quantization=first.params.quantization,
        gpu=gpus > 0,
        tensor_parallel=tensor_parallel(first.input("model"), ranks=ctx.profile.ranks, gpus=gpus),
        gpu_memory_share=ctx.profile.gpu_memory_share,
        cache_gib=ctx.profile.engine_cache_gib,
    )


def _wanted(job: Job[GenerateParams]) -> tuple[object, ...]:
    return job.params.engine, job.params.engine_dtype, job.params.quantization, job.input("model")


def tensor_parallel(model: Path, *, ranks: int, gpus: int) -> int:
    """Over how many GPUs a checkpoint is split: at most a profile's `ranks` and the `gpus` that are visible.

    Its heads must come out even.
    """
    if min(ranks, gpus) < 2:
        return 1
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    heads = int(config["num_attention_heads"])
    shared = math.gcd(heads, int(config.get("num_key_value_heads") or heads))
    return max(parts for parts in range(1, min(ranks, gpus) + 1) if shared % parts == 0)


def _raise_first(failures: Mapping[str, Mapping[str, str]], unheard: Sequence[str]) -> None:
    for name, failure in itertools.islice(failures.items(), 1):
        others = f"\nlikewise: {', '.join(list(failures)[1:])}" if len(failures) > 1 else ""
        raise StageFailed(f"{name}: {failure['what']}{others}", failure["where"], failure["fix"])
    if unheard:
        raise StageFailed(f"the engine ended without {', '.join(unheard)}", unheard[0], "run the same command again")


GENERATE = Stage(
    name="generate", version=2, params=GenerateParams, run=run_generate, batch=True, deterministic=False, slot="gpu"
)
