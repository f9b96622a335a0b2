"""Tabulate: what exists, and the names of the missing, to tables, figures and the report folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_pipeline.artifacts.canonical import added_field
from tulu_pipeline.artifacts.stage import AUX, Job, Metrics, RunContext, Stage
from tulu_pipeline.reporting.data_table import DataRow
from tulu_pipeline.reporting.paper import PublishedScore
from tulu_pipeline.reporting.table import AverageRule, TableColumn, TableRow

if TYPE_CHECKING:
    from tulu_pipeline.reporting.trainings import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class TabulateParams:
    """What the table shows; its inputs are `score:<row>/<metric>` and `completions:<row>/<metric>`.

    Where a judge replied to the completions, or programs were executed, `replies:<row>/<metric>` says what came of it.

    Of the rows that were trained here `training:<row>` is the checkpoint: beside it lies the record of its training.

    Attributes:
        title: of the table.
        rows: models; rows of one base model are brought together, the order is kept otherwise.
        columns: metrics, in order. An untuned row needs no inputs for a `tuned_only` column.
        notes: lines under the table: caps, samples, deviations.
        average: how columns are averaged: `columns` (Tables 3–5), `benchmarks` (Table 8) or `none` (6, 7).
        headline: the scorer shown first.
        data: rows of the table of the data; their statistics are the inputs `data:<name>`.
        data_tokenizer: name of the tokenizer that counted them.
        papers_tokenizer: it is the one that the paper counts with.
        length: the metric that a judge judged, and that by which the false evaluator judged the same answers; where
            there are two such, the length analysis shows them.
        published: the paper's numbers that stand beside ours; none beside what was made or asked otherwise.
    """

    title: str
    rows: tuple[TableRow, ...]
    columns: tuple[TableColumn, ...]
    notes: tuple[str, ...] = ()
    average: AverageRule = "columns"
    headline: str = "paper"
    data: tuple[DataRow, ...] = added_field(default=())
    data_tokenizer: str = added_field(default="")
    papers_tokenizer: bool = added_field(default=False)
    length: tuple[str, str] | None = added_field(default=None)
    published: tuple[PublishedScore, ...] = added_field(default=())


def run_tabulate(job: Job[TabulateParams], ctx: RunContext) -> Metrics:
    """Writes the report, and beside it, each where there is something to show, the two tables.

    table.md, table.csv, table.json and figure.png where there are models and metrics, and groups.csv where their items
    have groups; data_table.md, data_table.csv,
    data_table.json and lengths.png where there are datasets; training.md and training.csv where there are trainings;
    length.md, length.csv, length.json and length.png where a judge and the false evaluator judged the same answers;
    report/ with all of them.
    """
    params = job.params
    metrics: dict[str, Any] = {}
    if _has_results(params) or not params.data:
        metrics |= _results(job, ctx)
        _trainings(job)
    if params.data:
        metrics |= _data(job)
    return metrics


def _results(job: Job[TabulateParams], ctx: RunContext) -> dict[str, Any]:
    from tulu_pipeline.reporting.build import build_table
    from tulu_pipeline.reporting.figure import write_figure
    from tulu_pipeline.reporting.records import read_measurement
    from tulu_pipeline.reporting.report import read_cell, write_report
    from tulu_pipeline.reporting.table import write_table
    from tulu_pipeline.reporting.text import groups_to_csv, to_csv, to_markdown

    params = job.params
    folders = {
        (row.name, column.metric): job.inputs[score_input(row.name, column.metric)]
        for row in params.rows
        for column in params.columns
        if score_input(row.name, column.metric) in job.inputs
    }
    measured = {}
    for done, (place, folder) in enumerate(folders.items()):
        ctx.progress(job.name, done, len(folders), "cells", "/".join(place))
        measured[place] = None if folder is None else read_measurement(folder)
    table = build_table(
        title=params.title,
        rows=params.rows,
        columns=params.columns,
        measured=measured,
        notes=params.notes,
        average_rule=params.average,
        headline=params.headline,
        published=params.published,
    )
    write_table(table, job.out / "table.json")
    (job.out / "table.md").write_text(to_markdown(table), encoding="utf-8")
    (job.out / "table.csv").write_text(to_csv(table), encoding="utf-8")
    if groups := groups_to_csv(table):
        (job.out / "groups.csv").write_text(groups, encoding="utf-8")
    write_figure(table, job.out / "figure.png")
    cells = (
        read_cell(
            row,
            metric,
            scores=folder,
            completions=job.inputs.get(completions_input(row, metric)),
            replies=job.inputs.get(replies_input(row, metric)),
        )
        for (row, metric), folder in folders.items()
        if folder is not None
    )
    trained = any(training_input(row.name) in job.inputs for row in params.rows)
    write_report(
        table, cells, job.out / "report", data=bool(params.data), training=trained, length=params.length is not None
    )
    if params.length is not None:
        _lengths(job, params.length)
    missing = table.missing()
    return {"cells": len(params.rows) * len(params.columns), "missing": len(missing), "missing_cells": list(missing)}


def _lengths(job: Job[TabulateParams], metrics: tuple[str, str]) -> None:
    from tulu_pipeline.reporting.length_figure import write_length_figure
    from tulu_pipeline.reporting.length_page import write_length_page
    from tulu_pipeline.reporting.length_text import lengths_to_csv, lengths_to_markdown
    from tulu_pipeline.reporting.lengths import analyze_lengths
    from tulu_pipeline.reporting.records import read_judged_answers

    judged, counted = metrics
    answers, left_out = [], []
    for row in job.params.rows:
        names = (score_input(row.name, judged), replies_input(row.name, counted), completions_input(row.name, judged))
        scores, replies, completions = (job.inputs.get(name) for name in names)
        if scores is not None and replies is not None and completions is not None:
            answers.append((row, read_judged_answers(scores, replies, completions, job.params.headline)))
        elif not row.untuned:
            left_out.append(row.label)
    title = next(column.title for column in job.params.columns if column.metric == judged)
    analysis = analyze_lengths(title, answers, left_out)
    (job.out / "length.json").write_text(json.dumps(analysis.to_json(), indent=1) + "\n", encoding="utf-8")
    (job.out / "length.md").write_text(lengths_to_markdown(analysis), encoding="utf-8")
    (job.out / "length.csv").write_text(lengths_to_csv(analysis), encoding="utf-8")
    write_length_figure(analysis, job.out / "length.png")
    write_length_page(job.params.title, analysis, job.out / "report")


def _trainings(job: Job[TabulateParams]) -> None:
    from tulu_pipeline.reporting.training_page import write_training_page
    from tulu_pipeline.reporting.trainings import trainings_to_csv, trainings_to_markdown

    rows = [row for row in job.params.rows if training_input(row.name) in job.inputs]
    trainings = [_training(row, job.inputs[training_input(row.name)]) for row in rows]
    if trainings:
        title = job.params.title
        (job.out / "training.md").write_text(trainings_to_markdown(title, trainings), encoding="utf-8")
        (job.out / "training.csv").write_text(trainings_to_csv(trainings), encoding="utf-8")
        write_training_page(title, trainings, job.out / "report", data=bool(job.params.data))


def _training(row: TableRow, checkpoint: Path | None) -> Training:
    """What lies beside a checkpoint; of one that says less, less."""
    from tulu_pipeline.reporting.records import sha256_file
    from tulu_pipeline.reporting.trainings import Cost, Training
    from tulu_pipeline.training.tracking.record import HELD_OUT_FILE, STEPS_FILE, read_held_out, read_steps
    from tulu_pipeline.training.tracking.summary import TRAINING_FILE, record_metrics

    if checkpoint is None:
        return Training(row=row, cost=None)
    aux = checkpoint / AUX
    steps, looks = list(read_steps(aux / STEPS_FILE)), list(read_held_out(aux / HELD_OUT_FILE))
    told = json.loads((aux / TRAINING_FILE).read_text()) if (aux / TRAINING_FILE).exists() else {}
    known = (record_metrics(steps, looks) if steps else {}) | told
    names = {each.name for each in fields(Cost)}
    cost = {name: value for name, value in known.items() if name in names}
    if "ranks" in known:
        cost["ranks"] = known["ranks"] * known.get("nodes", 1)
    files = (STEPS_FILE, HELD_OUT_FILE, TRAINING_FILE)
    return Training(
        row=row,
        cost=Cost(**cost | {"seconds": known.get("seconds_training")}),
        curves={
            "loss": [(step.step, step.loss) for step in steps],
            "held_out_loss": [(look.step, look.loss) for look in looks],
            "grad_norm": [(step.step, step.grad_norm) for step in steps if step.grad_norm is not None],
            "learning_rate": [(step.step, step.learning_rate) for step in steps],
            "tokens_per_second": [(step.step, step.tokens / step.seconds) for step in steps],
        },
        notes=known.get("notes", ()),
        addresses=known.get("tracked_at", ()),
        provenance={file: sha256_file(aux / file) for file in files if (aux / file).exists()},
    )


def _data(job: Job[TabulateParams]) -> dict[str, Any]:
    from tulu_pipeline.reporting.data_figure import write_lengths
    from tulu_pipeline.reporting.data_page import write_data_page
    from tulu_pipeline.reporting.data_table import build_data_table, write_data_table
    from tulu_pipeline.reporting.data_text import data_to_csv, data_to_markdown
    from tulu_pipeline.tokens.statistics import read_statistics

    params = job.params
    names = [row.name for row in params.data if data_input(row.name) in job.inputs]
    folders = {name: job.inputs[data_input(name)] for name in names}
    table = build_data_table(
        title=params.title,
        tokenizer=params.data_tokenizer,
        papers_tokenizer=params.papers_tokenizer,
        rows=params.data,
        statistics={name: None if folder is None else read_statistics(folder) for name, folder in folders.items()},
        notes=() if _has_results(params) else params.notes,
    )
    write_data_table(table, job.out / "data_table.json")
    (job.out / "data_table.md").write_text(data_to_markdown(table), encoding="utf-8")
    (job.out / "data_table.csv").write_text(data_to_csv(table), encoding="utf-8")
    write_lengths(table, job.out / "lengths.png")
    write_data_page(table, folders, job.out / "report", results=_has_results(params))
    return {"datasets": len(params.data), "missing_datasets": list(table.missing())}


def _has_results(params: TabulateParams) -> bool:
    return bool(params.rows and params.columns)


def score_input(row: str, metric: str) -> str:
    """Name of the input with the scores of a cell."""
    return f"score:{row}/{metric}"


def completions_input(row: str, metric: str) -> str:
    """Name of the input with the completions of a cell."""
    return f"completions:{row}/{metric}"


def replies_input(row: str, metric: str) -> str:
    """Name of the input with what was said of the completions of a cell."""
    return f"replies:{row}/{metric}"


def training_input(row: str) -> str:
    """Name of the input with the checkpoint of a row that was trained here, and the record of its training."""
    return f"training:{row}"


def data_input(name: str) -> str:
    """Name of the input with the statistics of a dataset."""
    return f"data:{name}"


TABULATE = Stage(
    name="tabulate",
    version=8,
    params=TabulateParams,
    run=run_tabulate,
    env=("matplotlib",),
    tolerates_missing=True,
)
