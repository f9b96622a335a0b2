"""Tabulate: what exists, and the names of the missing, to tables, figures and the report folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tulu_pipeline.artifacts.canonical import added_field
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.reporting.data_table import DataRow
from tulu_pipeline.reporting.table import AverageRule, TableColumn, TableRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TabulateParams:
    """What the table shows; its inputs are `score:<row>/<metric>` and `completions:<row>/<metric>`.

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


def run_tabulate(job: Job[TabulateParams], ctx: RunContext) -> Metrics:
    """Writes the report, and beside it, each where there is something to show, the two tables.

    table.md, table.csv, table.json and figure.png where there are models and metrics; data_table.md, data_table.csv,
    data_table.json and lengths.png where there are datasets; report/ with both.
    """
    params = job.params
    metrics: dict[str, Any] = {}
    if _has_results(params) or not params.data:
        metrics |= _results(job, ctx)
    if params.data:
        metrics |= _data(job)
    return metrics


def _results(job: Job[TabulateParams], ctx: RunContext) -> dict[str, Any]:
    from tulu_pipeline.reporting.build import build_table
    from tulu_pipeline.reporting.figure import write_figure
    from tulu_pipeline.reporting.records import read_measurement
    from tulu_pipeline.reporting.report import read_cell, write_report
    from tulu_pipeline.reporting.table import write_table
    from tulu_pipeline.reporting.text import to_csv, to_markdown

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
    )
    write_table(table, job.out / "table.json")
    (job.out / "table.md").write_text(to_markdown(table), encoding="utf-8")
    (job.out / "table.csv").write_text(to_csv(table), encoding="utf-8")
    write_figure(table, job.out / "figure.png")
    cells = (
        read_cell(row, metric, scores=folder, completions=job.inputs.get(completions_input(row, metric)))
        for (row, metric), folder in folders.items()
        if folder is not None
    )
    write_report(table, cells, job.out / "report", data=bool(params.data))
    missing = table.missing()
    return {"cells": len(params.rows) * len(params.columns), "missing": len(missing), "missing_cells": list(missing)}


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


def data_input(name: str) -> str:
    """Name of the input with the statistics of a dataset."""
    return f"data:{name}"


TABULATE = Stage(
    name="tabulate",
    version=4,
    params=TabulateParams,
    run=run_tabulate,
    env=("matplotlib",),
    tolerates_missing=True,
)
