"""Import: outputs recorded elsewhere -> completions, as `generate` would have written them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.json_lines import write_lines
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.specs.benchmark import Benchmark


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportParams:
    """Which setting was answered.

    Attributes:
        benchmark, metric: which setting.
        options: the setting's.
        item_limit: number of items taken, spread evenly over the groups; None takes all.
        missing_are_empty: an item without an output counts as an empty answer.
        definition: the benchmark itself; its prompt version is what enters the key.
        called: what people know the file of outputs by.
    """

    benchmark: str
    metric: str
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    item_limit: int | None = None
    missing_are_empty: bool = False
    definition: Benchmark | None = execution_field(default=None)
    called: str = execution_field(default="")


def run_import(job: Job[ImportParams], ctx: RunContext) -> Metrics:
    """Write `completions.jsonl`.

    Raises:
        BadInput: outputs that do not fit the items.
    """
    from tulu_pipeline.inference.recorded import recorded_completions
    from tulu_pipeline.inference.selection import select

    params, benchmark = job.params, job.params.definition
    assert benchmark is not None, f"{job.name}: params carry no benchmark"
    files, setting = benchmark.files(job.input("benchmark")), benchmark.setting(params.metric)
    items = select(lambda: benchmark.items(files, setting), params.item_limit)
    (outputs,) = (path for path in job.input("outputs").iterdir() if path.is_file())
    completions = recorded_completions(outputs, items, missing_are_empty=params.missing_are_empty, called=params.called)
    return {"items": write_lines(job.out / "completions.jsonl", completions)}


IMPORT = Stage(name="import", version=1, params=ImportParams, run=run_import)
