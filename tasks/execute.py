"""Execute: completions -> how the program of each sample ended, in a sandbox."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_pipeline.artifacts.canonical import canonical_json, execution_field, sha256_text
from tulu_pipeline.artifacts.json_lines import to_line, write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.specs.answers import answered_items
from tulu_pipeline.specs.benchmark import Benchmark, Item
from tulu_pipeline.specs.judge import Execution

if TYPE_CHECKING:
    from tulu_pipeline.sandbox.program import Executed, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteParams:
    """Which setting's completions are executed, and how.

    Attributes:
        benchmark, metric: which setting.
        execution: what enters the verdicts; in which sandbox and how many at a time does not.
        definition: the benchmark itself; its prompt version is what enters the key.
    """

    benchmark: str
    metric: str
    execution: Execution
    definition: Benchmark | None = execution_field(default=None)


def run_execute(job: Job[ExecuteParams], ctx: RunContext) -> Metrics:
    """Execute each distinct program once, keep its verdict at once, and write all verdicts in the order of the items.

    Raises:
        MissingOnMachine: no sandbox here, and the run is not told to do without.
        StageFailed: the sandbox broke; the verdicts so far are kept.
    """
    from tulu_pipeline.artifacts.append_file import AppendFile, read_appended
    from tulu_pipeline.sandbox.pool import run_programs
    from tulu_pipeline.sandbox.program import Executed
    from tulu_pipeline.sandbox.tiers import best_tier

    tier, seconds = best_tier(unsafe_code=ctx.unsafe_code), job.params.execution.timeout_seconds
    job.work.mkdir(parents=True, exist_ok=True)
    total = len({program.program_id for program in _programs(job)})
    records = job.work / "verdicts.jsonl"
    found = {each.verdict.program_id: each for each in read_appended(records, Executed)}
    with AppendFile(records, Executed) as kept:
        # The same text is the same program, and models repeat themselves.
        open_ = {each.program_id: each for each in _programs(job) if each.program_id not in found}
        verdicts = run_programs(
            open_.values(),
            timeout_seconds=seconds,
            workers=len(os.sched_getaffinity(0)),
            tier=tier,
            packages=_packages(),
            on_process=ctx.on_child,
        )
        for verdict in verdicts:
            found[verdict.program_id] = executed = Executed(tier=tier, verdict=verdict)
            kept.add(executed)
            ctx.progress(job.name, len(found), total, "programs")
    write_lines(job.out / "replies.jsonl", _replies(job, found))
    _write_details(job, found)
    return _counts(job, found)


def _packages() -> dict[str, Path]:
    """What programs may import beside Python's own library: numpy, which the original's environment had too."""
    import numpy as np

    package = Path(np.__file__).parent
    return {each.name: each for each in (package, package.with_name("numpy.libs")) if each.is_dir()}


def _programs(job: Job[ExecuteParams]) -> Iterator[Program]:
    from tulu_pipeline.sandbox.program import Program

    for item, text in _samples(job):
        yield Program(
            program_id=_program_id(item, text, job.params.execution),
            source=f"{item.gold['before']}{text}{item.gold['after']}",
            entry_point=item.gold["entry_point"],
            answer=text,
        )


def _samples(job: Job[ExecuteParams]) -> Iterator[tuple[Item, str]]:
    benchmark = job.params.definition
    assert benchmark is not None, f"{job.name}: params carry no benchmark"
    pairs = answered_items(benchmark, job.params.metric, job.input("benchmark"), job.input("completions"))
    return ((item, text) for item, completion in pairs for text in completion.texts)


def _program_id(item: Item, text: str, execution: Execution) -> str:
    """A verdict answers for exactly this program, so that one kept from another attempt is known again."""
    parts = [item.item_id, item.gold["before"], text, item.gold["after"], execution]
    return sha256_text(canonical_json(parts))


def _replies(job: Job[ExecuteParams], found: Mapping[str, Executed]) -> Iterator[Reply]:
    verdicts: list[dict[str, Any]] = []
    last = ""
    for item, text in _samples(job):
        if last and item.item_id != last:
            yield Reply(item_id=last, reply={"samples": verdicts})
            verdicts = []
        last = item.item_id
        verdict = found[_program_id(item, text, job.params.execution)].verdict
        verdicts.append({"outcome": verdict.outcome, "error": verdict.error, "flags": verdict.flags})
    if last:
        yield Reply(item_id=last, reply={"samples": verdicts})


def _write_details(job: Job[ExecuteParams], found: Mapping[str, Executed]) -> None:
    """Beside the verdicts what is not theirs: tier, times, output."""
    with (job.aux / "programs.jsonl").open("wb") as lines:
        for executed in found.values():
            lines.write(to_line(executed))


def _counts(job: Job[ExecuteParams], found: Mapping[str, Executed]) -> Metrics:
    wanted = {_program_id(item, text, job.params.execution) for item, text in _samples(job)}
    executed = [found[program] for program in sorted(wanted)]
    outcomes = [each.verdict.outcome for each in executed]
    return {
        "tier": ", ".join(sorted({each.tier for each in executed})),
        "programs": len(executed),
        **{outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "flagged": sum(bool(each.verdict.flags) for each in executed),
        "tried_again": sum(each.verdict.attempts > 1 for each in executed),
        "sandbox_seconds": round(sum(each.verdict.seconds for each in executed), 2),
    }


EXECUTE = Stage(name="execute", version=1, params=ExecuteParams, run=run_execute, deterministic=False)
