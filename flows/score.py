"""Completions of one's own, scored as the project's are: a file becomes a row, and the row a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.catalog import BENCHMARKS, find_tokenizer
from flows.graph import graph_of
from flows.graph_data import DataGraph
from flows.session import Request, Session, make_all, prepare_graph
from tulu_pipeline.artifacts.artifact import Graph
from tulu_pipeline.artifacts.run import Failure
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import ReportProgress, no_progress
from tulu_pipeline.errors import BadInput, TuluError, unknown_name
from tulu_pipeline.specs.benchmark import Benchmark, Item, Setting
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import Annotator, Judge
from tulu_pipeline.specs.recorded_model import RecordedModel


def score_session(
    file: Path,
    asked: str,
    *,
    missing_are_empty: bool = False,
    tokenizer: str = "llama",
    judge: str | None = None,
    max_usd: str | None = None,
    store: str | None = None,
    progress: ReportProgress = no_progress,
) -> Session:
    """A planned session whose table holds the scores of the completions in `file`; runs nothing.

    Args:
        file: see `inference.recorded`.
        asked: a metric (`gsm_cot`), or a benchmark that is asked in one way only.
        missing_are_empty: an item without a completion counts as an empty one, instead of being an error.
        tokenizer: counts tokens where the judge does so: its name, a model's, or a folder.
        judge: model that ranks the answers in place of the benchmark's own annotator, as its provider calls it.
        max_usd: what may be spent on a judge that is paid, in US dollars; None is without bound.
        store: root of the store; None takes TULU_STORE or `./store`.
        progress: where progress goes.

    Raises:
        NotFound: no such metric. BadInput: several ways to ask, or no such file.
    """
    if not file.is_file():
        raise BadInput("no such file", str(file), 'write JSON lines of {"item_id": …, "completion": …}')
    benchmark, setting = find_setting(asked)
    counts_tokens = setting.judge is not None and setting.judge.counts_tokens
    experiment = Experiment(
        name=f"score-{file.stem}",
        title=f"{file.name} on {setting.title}",
        hypothesis="",
        models=(),
        mixtures=(),
        recorded_models=(
            RecordedModel(
                name=file.stem,
                label=file.name,
                outputs={benchmark.name: LocalFile(path=str(file.absolute()))},
                missing_are_empty=missing_are_empty,
            ),
        ),
        benchmarks={benchmark.name: (setting.metric,)},
        data_tokenizer=find_tokenizer(tokenizer) if counts_tokens else None,
        judges={setting.metric: _other_judge(setting, judge)} if judge else {},
        average="none",
    )
    request = Request(experiment=experiment.name, store=store, max_usd=max_usd)
    return prepare_graph(request, experiment, graph_of(experiment), progress)


def _other_judge(setting: Setting, model: str) -> Judge:
    if not isinstance(setting.judge, Annotator):
        raise BadInput(f"`{setting.metric}` is not ranked by a model", "--judge", "leave `--judge` out")
    return replace(setting.judge, model=model, name=f"{model}, with the prompt of {setting.judge.name}")


def with_ways_out(session: Session, failures: list[Failure]) -> list[Failure]:
    """The failures, where the judge is what lacks something, with what `tulu score` takes instead."""
    benchmark, setting = _asked(session)
    told = []
    for failure in failures:
        way = ""
        if setting.judge is not None and setting.judge.counts_tokens and failure.name in _tokenizers(session):
            way = "or count by another tokenizer: `--tokenizer` takes a name, a model's, or a folder"
        elif setting.judge is not None and setting.judge.slot == "api" and failure.name.startswith("judge["):
            others = [each.metric for each in benchmark.settings if each.same_completions_as == setting.metric]
            way = "or name a model that replies: `--judge MODEL`" if isinstance(setting.judge, Annotator) else ""
            if others:
                way += f"{', ' if way else ''}or have it judged by nobody who is paid: `--benchmark {others[0]}`"
        error = failure.error
        told.append(
            Failure(failure.name, TuluError(error.what, error.where, f"{error.fix}; {way}")) if way else failure
        )
    return told


def _asked(session: Session) -> tuple[Benchmark, Setting]:
    ((name, (metric,)),) = session.experiment.benchmarks.items()
    benchmark = BENCHMARKS.get(name)
    return benchmark, benchmark.setting(metric)


def _tokenizers(session: Session) -> set[str]:
    """Artifacts that a judge counts tokens with."""
    return {
        node.artifact.inputs["tokenizer"].name
        for node in session.plan.nodes.values()
        if node.artifact.stage.name == "judge" and "tokenizer" in node.artifact.inputs
    }


def find_setting(asked: str) -> tuple[Benchmark, Setting]:
    """The setting whose metric is `asked`, or the only one of the benchmark of that name.

    Raises:
        NotFound: nothing is called so. BadInput: the benchmark is asked in several ways.
    """
    metrics = {setting.metric: (benchmark, setting) for benchmark in BENCHMARKS.all() for setting in benchmark.settings}
    if asked in metrics:
        return metrics[asked]
    for benchmark in BENCHMARKS.all():
        if benchmark.name == asked:
            ways = [setting.metric for setting in benchmark.settings if not setting.same_completions_as]
            if len(ways) == 1:
                return metrics[ways[0]]
            raise BadInput(f"`{asked}` is asked in {len(ways)} ways", "--benchmark", f"write one of {', '.join(ways)}")
    raise unknown_name("metric", asked, metrics)


def items_of(benchmark: Benchmark, store: str | None = None) -> dict[str, list[Item]]:
    """What each metric of a benchmark asks, in order; the benchmark's files are downloaded where they are not there.

    Raises:
        TuluError: they cannot be had.
    """
    experiment = Experiment(
        name=f"items-{benchmark.name}", title=benchmark.title, hypothesis="", models=(), mixtures=(), benchmarks={}
    )
    artifact = DataGraph(experiment).download(benchmark.name, benchmark.sources)
    session = prepare_graph(Request(experiment=experiment.name, store=store), experiment, Graph([artifact]))
    make_all(session)
    files = benchmark.files(session.folder(artifact.name))

    def asked(setting: Setting) -> Iterator[Item]:
        return benchmark.items(files, setting)

    return {setting.metric: list(asked(setting)) for setting in benchmark.settings if not setting.same_completions_as}


def stored_scores(session: Session) -> list[dict[str, Any]]:
    """What was scored: the folder of each score, and its `metrics.json`; none of what could not be."""
    planned = prepare_graph(session.request, session.experiment, session.graph)
    found = []
    for name, node in planned.plan.nodes.items():
        if node.artifact.stage.name == "score" and node.manifest is not None:
            folder = Path(session.store.path(node.manifest))
            found.append(
                {"name": name, "folder": str(folder), "metrics": json.loads((folder / "metrics.json").read_text())}
            )
    return found
