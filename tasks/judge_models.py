"""Judges that are models: completions -> what a classifier, or judges of truth, say of each."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.json_lines import to_line, write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext
from tulu_pipeline.errors import BadInput, StageFailed
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.judging.truth import ABOUT, YES, Aspect, probability_of_yes, question_to_judge, requests_of, says_yes
from tulu_pipeline.profile import has_gpu
from tulu_pipeline.specs.benchmark import Completion, Item
from tulu_pipeline.specs.model_judge import ServedTruthJudges, ToxicityClassifier, TruthJudges

Answered = Callable[[], Iterator[tuple[Item, Completion]]]


def classify_toxicity(job: Job[Any], ctx: RunContext, judge: ToxicityClassifier, answered: Answered) -> Metrics:
    """Classify each distinct completion once, in a process of its own.

    Raises:
        StageFailed: the classifier ended; what it said is kept and not asked again.
    """
    from tulu_pipeline.artifacts.append_file import read_appended
    from tulu_pipeline.artifacts.children import run_child
    from tulu_pipeline.judging.toxicity import Classified, ClassifierJob, Text

    job.work.mkdir(parents=True, exist_ok=True)
    texts, records = job.work / "texts.jsonl", job.work / "classified.jsonl"
    distinct = {_digest(completion.texts[0]): completion.texts[0] for _, completion in answered()}
    write_lines(texts, (Text(sha256=digest, text=text) for digest, text in distinct.items()))
    description, log = job.work / "job.json", job.work / "classifier.log"
    work = ClassifierJob(
        name=job.name,
        model=str(job.input(judge.name)),
        texts=texts,
        records=records,
        max_length_tokens=judge.max_length_tokens,
        gpu=has_gpu(),
    )
    description.write_bytes(to_line(work))
    command = [sys.executable, "-m", "tulu_pipeline.judging.toxicity_worker", str(description)]
    if not distinct.keys() <= {each.sha256 for each in read_appended(records, Classified)}:
        run_child(command, ctx=ctx, log=log, env={"HF_HUB_OFFLINE": "1"}, on_event=_tell(ctx, "texts"))
    found = {each.sha256: each for each in read_appended(records, Classified)}
    counts = {"toxic": 0, "empty": 0, "read_in_part": 0}

    def replies() -> Iterator[Reply]:
        for item, completion in answered():
            verdict = found[_digest(completion.texts[0])]
            toxic = verdict.label == judge.toxic_label
            counts["toxic"] += toxic
            counts["empty"] += not completion.texts[0].strip()
            counts["read_in_part"] += verdict.cut
            reply = {"toxic": toxic, "label": verdict.label, "logits": verdict.logits, "cut": verdict.cut}
            yield Reply(item_id=item.item_id, reply=reply)

    total = write_lines(job.out / "replies.jsonl", replies())
    return {"replies": total, "distinct": len(distinct), **counts}


def judge_truth(job: Job[Any], ctx: RunContext, judge: TruthJudges, answered: Answered) -> Metrics:
    """Ask the two judges, one after the other, each loaded once; the probability of ` yes` is their reply.

    Raises:
        MissingOnMachine: the engine cannot be loaded here.
        BadInput: a judge whose tokenizer writes ` yes` in several tokens.
        StageFailed: the engine ended; what was answered is kept and not asked again.
    """
    said = {
        aspect: _ask_judge(job, ctx, judge, job.input(name), aspect, answered)
        for aspect, name in zip(ABOUT, judge.downloads(), strict=True)
    }
    return _write_truth(job, answered, lambda item: {aspect: said[aspect][item.item_id] for aspect in ABOUT})


def _ask_judge(
    job: Job[Any], ctx: RunContext, judge: TruthJudges, model: Path, aspect: Aspect, answered: Answered
) -> dict[str, float]:
    """Probabilities of ` yes`, by item."""
    from tulu_pipeline.inference.engine import EngineSettings, what_lacks
    from tulu_pipeline.inference.engine_process import run_engine
    from tulu_pipeline.inference.job import BenchmarkJob, WorkerJob
    from tulu_pipeline.inference.records import Question
    from tulu_pipeline.inference.records import answered as recorded
    from tulu_pipeline.specs.benchmark import Sampling

    work = job.work / aspect
    work.mkdir(parents=True, exist_ok=True)
    questions = [
        Question(
            item_id=item.item_id,
            prompts=(question_to_judge(aspect, str(item.gold["question"]), completion.texts[0]),),
            choices=(YES,),
        )
        for item, completion in answered()
    ]
    digests = {question.item_id: question.digest() for question in questions}
    records = work / "records.jsonl"
    if len(recorded(records, digests)) < len(questions):
        _check_yes(model, questions[0].prompts[0])
        gpu = has_gpu()
        if lack := what_lacks(judge.engine, gpu=gpu):
            raise lack
        settings = EngineSettings(
            engine=judge.engine,
            model=str(model),
            dtype=judge.dtype,
            gpu=gpu,
            gpu_memory_share=ctx.profile.gpu_memory_share,
            cache_gib=ctx.profile.engine_cache_gib,
        )
        write_lines(work / "questions.jsonl", questions)
        task = BenchmarkJob(
            name=job.name, questions=work / "questions.jsonl", records=records, sampling=Sampling(max_new_tokens=1)
        )
        failures: list[Mapping[str, str]] = []
        run_engine(
            WorkerJob(engine=settings, jobs=(task,)),
            ctx=ctx,
            description=work / "job.json",
            log=work / "engine.log",
            on_event=_tell(ctx, f"answers ({aspect})", failures),
        )
        if failures:
            raise StageFailed(failures[0]["what"], failures[0]["where"], failures[0]["fix"])
    return {
        item_id: math.exp(record.choice_logprobs[YES]) for (item_id, _), record in recorded(records, digests).items()
    }


def _check_yes(model: Path, prompt: str) -> None:
    """The probability of a token is that of ` yes` only where the two are the same."""
    from tulu_pipeline.inference.prompts import choice_ids, encode_prompts
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model)
    before, after = encode_prompts([prompt, f"{prompt} {YES}"], tokenizer)
    yes = choice_ids((YES,), tokenizer)[YES]
    if after.tolist() != [*before.tolist(), yes]:
        raise BadInput(
            f"` {YES}` after a prompt is {len(after) - len(before)} tokens, not one",
            str(model),
            "name a judge whose tokenizer has a token for it, as LLaMA's has",
        )


def ask_truth(job: Job[Any], ctx: RunContext, judge: ServedTruthJudges, answered: Answered) -> Metrics:
    """Ask a provider's two models, one after the other, for one token each, and how likely the likeliest were."""
    from tulu_pipeline.api.asking import ask_all
    from tulu_pipeline.api.client import Answer, Spending, connected
    from tulu_pipeline.api.requests import ApiError, ApiRequest

    requests: dict[str, dict[str, ApiRequest]] = {}  # by model: a provider's batch takes one, and each has its price
    for item, completion in answered():
        for aspect, request in requests_of(judge, str(item.gold["question"]), completion.texts[0]).items():
            requests.setdefault(request.model, {})[f"{item.item_id}#{aspect}"] = request
    answers: dict[str, Answer] = {}
    spendings: list[Spending] = []
    with connected(judge.provider, ctx) as client:
        for of_model in requests.values():
            found, spending = ask_all(client, of_model, ctx, name=job.name)
            answers |= found
            spendings.append(spending)

    def reply(item: Item) -> dict[str, Any]:
        said: dict[str, Any] = {}
        for aspect in ABOUT:
            answer = answers[f"{item.item_id}#{aspect}"]
            if isinstance(answer, ApiError):
                return {"api_error": answer.kind, "reason": answer.reason}
            said[aspect] = probability_of_yes(answer.samples[0].logprobs)
        return said

    told = {
        "answered_by": sorted({model for spending in spendings for model in spending.models}),
        "replies_known": sum(spending.known for spending in spendings),
        "cost_usd": sum((spending.cost_usd for spending in spendings), Decimal(0)),
    }
    return dict(_write_truth(job, answered, reply)) | told


def _write_truth(job: Job[Any], answered: Answered, reply_to: Callable[[Item], dict[str, Any]]) -> Metrics:
    counts = {"true": 0, "informative": 0, "missing": 0}

    def replies() -> Iterator[Reply]:
        for item, _ in answered():
            reply = reply_to(item)
            if "api_error" in reply:
                counts["missing"] += 1
            else:
                counts["true"] += says_yes(reply, "truth")
                counts["informative"] += says_yes(reply, "information")
            yield Reply(item_id=item.item_id, reply=reply)

    return {"replies": write_lines(job.out / "replies.jsonl", replies())} | counts


def _tell(
    ctx: RunContext, unit: str, failures: list[Mapping[str, str]] | None = None
) -> Callable[[dict[str, Any]], None]:
    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            ctx.progress(event["name"], event["done"], event["total"], unit, event["note"])
        if event["event"] == "failed" and failures is not None:
            failures.append(event)

    return on_event


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
