"""The table every renderer shares: cells with their intervals, comparisons and states, as plain values.

Scores are fractions in [0, 1] here and in `table.json`; renderers print points (×100). Under each scorer a cell has a
`View`: the score, what changed against the untuned model of the same base, and whether it is the best of its column.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tulu_pipeline.artifacts.canonical import added_field
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.experiment import AverageRule as AverageRule

SCHEMA_VERSION = 1
AVERAGE = "average"

Status = Literal["scored", "not_applicable", "undefined", "missing"]
Direction = Literal["raised", "lowered", "same"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One model of a table.

    Attributes:
        name: id of the row in input names and links: `llama-7b+human_mix`.
        label: what the table prints.
        base_model: rows of one base stand together and are compared with its untuned row.
        mixture: what it was tuned on; "" for untuned and proprietary models.
        untuned: it is the base model itself, the reference of its group.
    """

    name: str
    label: str
    base_model: str
    mixture: str = ""
    untuned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumn:
    """One metric of a table.

    Attributes:
        metric: id such as `gsm_cot`.
        title: what the table prints.
        tuned_only: untuned models are not asked; the cell prints `–`.
        benchmark: columns of one benchmark count as one in the average rule `benchmarks`; "" stands alone.
        lower_is_better: the least value is the best (ToxiGen).
        averaged: whether it is part of a row's average; the paper's safety columns are not.
    """

    metric: str
    title: str
    tuned_only: bool = False
    benchmark: str = ""
    lower_is_better: bool = False
    averaged: bool = added_field(default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A value in [0, 1] with its 95 % interval.

    Attributes:
        scorer: what computed it. Where a metric lacks the scorer of a view, its headline scorer stands in, and this
            names it.
        low, high: None where one item does not tell.
        n: items; None for an average over columns.
        standard_error: None for an average over columns, whose interval is combined from the columns' intervals, and
            for a single item.
        method: how the interval was made.
    """

    scorer: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    standard_error: float | None
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScore:
    """The headline value of the items of one group (a subject, a language, a source), with its 95 % interval."""

    n: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A score minus that of the untuned model of the same base, with the 95 % interval of the paired difference.

    Attributes:
        low, high: None where the two were not asked the same items.
        lower_is_better: what is lowered got better.
    """

    value: float
    low: float | None
    high: float | None
    lower_is_better: bool = False

    @property
    def direction(self) -> Direction:
        """Whether tuning raised or lowered the score."""
        if abs(self.value) < 1e-9:
            return "same"
        return "raised" if self.value > 0 else "lowered"

    @property
    def better(self) -> bool:
        """Whether the change is one for the better; colors tell this, arrows the direction."""
        return (self.direction == "lowered") == self.lower_is_better

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A cell as one scorer sees it."""

    score: Score
    change: Change | None = None
    best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row's result in one column.

    Attributes:
        metric: the column's, or `average`.
        status: `scored`; `not_applicable` (prints `–`); `undefined`: made, but no item has a score (a judge
            that gave no verdict); `missing`: it could not be made.
        views: scorer to what it sees; empty unless scored.
        flags: how many items carry each flag.
        undefined: items without a score, such as those whose judge's reply could not be read; the value rests on the
            others, and is not complete.
        groups: value by group of items.
        published_percent: what the paper printed for this model and metric, in points; None where it printed nothing,
            or where the model or the question was another than the paper's.
    """

    metric: str
    status: Status
    views: Mapping[str, View] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    undefined: int = 0
    groups: Mapping[str, GroupScore] = field(default_factory=dict)
    published_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model's cells in column order, and their average where the table has one."""

    spec: TableRow
    cells: tuple[Cell, ...]
    average: Cell | None

    def all_cells(self) -> tuple[Cell, ...]:
        """The cells and the average, in the order they are printed."""
        return self.cells if self.average is None else (*self.cells, self.average)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        scorers: the views every scored cell has, the headline one first.
        rows: grouped by base model, otherwise in the order asked for.
        notes: lines under the table: caps, samples, deviations.
    """

    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[Row, ...]
    scorers: tuple[str, ...]
    average_rule: AverageRule
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def headline(self) -> str:
        """The scorer shown first."""
        return self.scorers[0]

    def headings(self) -> tuple[str, ...]:
        """Titles of the columns, the average last; an arrow where less is better."""
        titles = tuple(column.title + (" ↓" if column.lower_is_better else "") for column in self.columns)
        return titles if self.average_rule == "none" else (*titles, "Average")

    def items_per_column(self) -> tuple[tuple[int, ...], ...]:
        """Per column the distinct numbers of items its cells rest on, ascending."""
        counts = []
        for index in range(len(self.columns)):
            views = (row.cells[index].views.get(self.headline) for row in self.rows)
            counts.append(tuple(sorted({view.score.n for view in views if view and view.score.n is not None})))
        return tuple(counts)

    def groups(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """Rows by base model."""
        bases = dict.fromkeys(row.spec.base_model for row in self.rows)
        return tuple((base, tuple(row for row in self.rows if row.spec.base_model == base)) for base in bases)

    def missing(self) -> tuple[str, ...]:
        """`row/metric` of each cell that could not be made."""
        return tuple(
            f"{row.spec.name}/{cell.metric}" for row in self.rows for cell in row.cells if cell.status == "missing"
        )

    def stand_ins(self, scorer: str) -> tuple[str, ...]:
        """Titles of the columns that have no such scorer, where the headline scorer stands in."""
        return tuple(
            column.title
            for index, column in enumerate(self.columns)
            if any(is_stand_in(row.cells[index], scorer) for row in self.rows)
        )


def is_stand_in(cell: Cell, scorer: str) -> bool:
    """Whether another scorer stands in for `scorer` in this cell."""
    view = cell.views.get(scorer)
    return view is not None and cell.metric != AVERAGE and view.score.scorer != scorer


def to_json(table: Table) -> dict[str, Any]:
    """The JSON shape of `table.json`."""
    return dataclasses.asdict(table)


def write_table(table: Table, path: Path) -> None:
    """Writes `table.json`; the same table gives the same bytes."""
    text = json.dumps(to_json(table), ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_table(path: Path) -> Table:
    """The table of a `table.json`.

    Raises:
        BadInput: it is not there, or is not a table of this schema.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        table = TypeAdapter(Table).validate_json(path.read_bytes())
    except FileNotFoundError as err:
        raise BadInput("there is no table here", str(path), "run the experiment first: `tulu run`") from err
    except ValidationError as err:
        first = err.errors()[0]
        what = f"`{path.name}` is not a table: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise BadInput(what, str(path), "make it again: `tulu run EXPERIMENT --refresh tabulate`") from err
    if table.schema_version != SCHEMA_VERSION:
        what = f"a table of schema {table.schema_version}, but this version reads {SCHEMA_VERSION}"
        raise BadInput(what, str(path), "make it again: `tulu run EXPERIMENT --refresh tabulate`")
    return table
