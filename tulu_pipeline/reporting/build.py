"""From measured cells to a `Table`: one pure function."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tulu_pipeline.errors import BadInput
from tulu_pipeline.reporting.intervals import Estimate, weighted_sum
from tulu_pipeline.reporting.paper import PublishedScore
from tulu_pipeline.reporting.table import (
    AVERAGE,
    AverageRule,
    Cell,
    Change,
    GroupScore,
    Row,
    Score,
    Table,
    TableColumn,
    TableRow,
    View,
)
from tulu_pipeline.reporting.text import points
from tulu_pipeline.scoring.paired import paired_difference
from tulu_pipeline.specs.judge import MISSING

_SCORER_ORDER = ("paper", "strict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a score artifact says about one row and metric.

    Attributes:
        headline: the metric's own headline scorer; stands in where a view's scorer is not defined.
        scores: scorer to its score; without those that no item is defined for. One that is not among `item_scores`
            is of all items together (a win rate at equal length).
        item_ids: in the order of `item_scores`.
        clusters: what each item shares with others (its subject), where the intervals account for it; else empty.
        macro: whether the value is the mean of the clusters' means.
        item_scores: scorer to one value per item, NaN where undefined.
        flags: flag to the number of items that carry it.
        groups: group of items (its subject, its source) to the headline's value.
    """

    headline: str
    scores: Mapping[str, Score]
    item_ids: Sequence[str] = ()
    clusters: Sequence[str] = ()
    macro: bool = False
    item_scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, GroupScore] = field(default_factory=dict)

    def undefined(self) -> int:
        """Items that the headline scorer has no score for."""
        return sum(map(math.isnan, self.item_scores.get(self.headline, ())))


def build_table(
    *,
    title: str,
    rows: Sequence[TableRow],
    columns: Sequence[TableColumn],
    measured: Mapping[tuple[str, str], Measurement | None],
    notes: Sequence[str] = (),
    average_rule: AverageRule = "columns",
    headline: str = "paper",
    published: Sequence[PublishedScore] = (),
) -> Table:
    """The table of `rows` × `columns`.

    Args:
        title: for people.
        rows: models; those of one base model are brought together, the order is kept otherwise.
        columns: metrics.
        measured: (row name, metric) to its measurement, None for one that could not be made. Every cell but those of
            untuned models in `tuned_only` columns must be there.
        notes: lines under the table.
        average_rule: `columns`: plain mean of the columns (Tables 3–5 of the paper); `benchmarks`: per benchmark the
            mean of its columns, then the mean of those (Table 8); `none`. A row with an empty cell has no average.
        headline: the scorer shown first.
        published: the paper's numbers to stand beside ours.

    Raises:
        BadInput: a row or metric is named twice, or a cell is neither measured nor said to be missing.
    """
    _refuse_twins("row", (row.name for row in rows))
    _refuse_twins("column", (column.metric for column in columns))
    bases = dict.fromkeys(row.base_model for row in rows)
    grouped = [row for base in bases for row in rows if row.base_model == base]
    scorers = _scorers(measured.values(), headline)
    weights = _weights(columns, average_rule)
    least = frozenset(column.metric for column in columns if column.lower_is_better)
    references = {row.base_model: row for row in rows if row.untuned}
    papers = {(each.row, each.metric): each.percent for each in published}
    made: dict[str, Row] = {}
    for spec in sorted(grouped, key=lambda row: not row.untuned):  # references first
        reference = references.get(spec.base_model)
        base = None if reference is None or spec.untuned else (reference, made[reference.name])
        made[spec.name] = _row(spec, columns, weights, measured, scorers, base, papers)
    return Table(
        title=title,
        columns=tuple(columns),
        rows=_mark_best([made[spec.name] for spec in grouped], least),
        scorers=scorers,
        average_rule=average_rule if weights else "none",
        notes=(*_incomplete(grouped, columns, measured), *notes),
    )


def _incomplete(
    rows: Sequence[TableRow],
    columns: Sequence[TableColumn],
    measured: Mapping[tuple[str, str], Measurement | None],
) -> Iterable[str]:
    """What lacks because a judge could not be asked: such a number is no result yet."""
    for row in rows:
        for column in columns:
            measurement = measured.get((row.name, column.metric))
            if measurement is not None and (count := measurement.flags.get(MISSING, 0)):
                items = f"{count} of {len(measurement.item_ids)} items"
                yield f"INCOMPLETE: {row.label}, {column.title}: {items} without a reply of the judge."


def _row(
    spec: TableRow,
    columns: Sequence[TableColumn],
    weights: Sequence[float],
    measured: Mapping[tuple[str, str], Measurement | None],
    scorers: Sequence[str],
    base: tuple[TableRow, Row] | None,
    papers: Mapping[tuple[str, str], float],
) -> Row:
    cells = []
    for column in columns:
        published = papers.get((spec.name, column.metric))
        if spec.untuned and column.tuned_only:
            cells.append(Cell(metric=column.metric, status="not_applicable", published_percent=published))
            continue
        measurement = _measurement(measured, spec.name, column.metric)
        if measurement is None:
            cells.append(Cell(metric=column.metric, status="missing", published_percent=published))
            continue
        if measurement.headline not in measurement.scores:
            flags = dict(sorted(measurement.flags.items()))
            undefined = measurement.undefined()
            cells.append(Cell(metric=column.metric, status="undefined", flags=flags, undefined=undefined))
            continue
        reference = measured.get((base[0].name, column.metric)) if base else None
        views = {scorer: _view(measurement, reference, scorer, column.lower_is_better) for scorer in scorers}
        cells.append(
            Cell(
                metric=column.metric,
                status="scored",
                views=views,
                flags=dict(sorted(measurement.flags.items())),
                undefined=measurement.undefined(),
                groups=measurement.groups,
                published_percent=published,
            )
        )
    if not weights:
        return Row(spec=spec, cells=tuple(cells), average=None)
    averaged = [cell for cell, column in zip(cells, columns, strict=True) if column.averaged]
    average = _average(averaged, weights, scorers, base[1].average if base else None)
    return Row(
        spec=spec, cells=tuple(cells), average=replace(average, published_percent=papers.get((spec.name, AVERAGE)))
    )


def _view(measurement: Measurement, reference: Measurement | None, scorer: str, lower_is_better: bool) -> View:
    score = _scored_by(measurement, scorer)
    if reference is None:
        return View(score=score)
    untuned = reference.scores.get(score.scorer)
    if untuned is None:
        return View(score=score)
    change = score.value - untuned.value
    paired = None
    by_item = score.scorer in measurement.item_scores and score.scorer in reference.item_scores
    if by_item and measurement.item_ids and tuple(measurement.item_ids) == tuple(reference.item_ids):
        ours, theirs = measurement.item_scores[score.scorer], reference.item_scores[score.scorer]
        macro = measurement.macro or reference.macro
        groups = measurement.clusters or reference.clusters or None
        paired = paired_difference(ours, theirs, groups, macro=macro)
    if paired is None:
        return View(score=score, change=Change(value=change, low=None, high=None, lower_is_better=lower_is_better))
    # Centered on the difference of the printed values: either model may have items without a score.
    shift = change - paired.value
    low, high = paired.low + shift, paired.high + shift
    return View(score=score, change=Change(value=change, low=low, high=high, lower_is_better=lower_is_better))


def _average(cells: Sequence[Cell], weights: Sequence[float], scorers: Sequence[str], untuned: Cell | None) -> Cell:
    if any(cell.status in ("missing", "undefined") for cell in cells):
        return Cell(metric=AVERAGE, status="missing")
    if not cells or any(cell.status == "not_applicable" for cell in cells):
        return Cell(metric=AVERAGE, status="not_applicable")
    views = {}
    for scorer in scorers:
        parts = [cell.views[scorer] for cell in cells]
        value, low, high = _mean([part.score for part in parts], weights)
        score = Score(
            scorer=scorer,
            value=value,
            low=None if low is None else max(0.0, low),
            high=None if high is None else min(1.0, high),
            n=None,
            standard_error=None,
            method="combined from the columns",
        )
        changes = [part.change for part in parts if part.change is not None]
        change = None
        if untuned is not None and untuned.status == "scored" and len(changes) == len(parts):
            value, low, high = _mean(changes, weights)
            change = Change(value=value, low=low, high=high)
        views[scorer] = View(score=score, change=change)
    return Cell(metric=AVERAGE, status="scored", views=views)


def _mean(parts: Sequence[Score | Change], weights: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Weighted mean and its interval; no interval where a part has none."""
    known = [
        Estimate(value=part.value, low=part.low, high=part.high)
        for part in parts
        if part.low is not None and part.high is not None
    ]
    if len(known) == len(parts):
        total = weighted_sum(known, weights)
        return total.value, total.low, total.high
    return math.fsum(weight * part.value for weight, part in zip(weights, parts, strict=True)), None, None


def _mark_best(rows: Sequence[Row], least: frozenset[str]) -> tuple[Row, ...]:
    """Marks the best printed value of each column, ties together; a column with one value has no best."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        for cell in row.all_cells():
            better = min if cell.metric in least else max
            for scorer, view in cell.views.items():
                printed = _printed(view.score)
                best[cell.metric, scorer] = better(best.get((cell.metric, scorer), printed), printed)
    scored = Counter(cell.metric for row in rows for cell in row.all_cells() if cell.status == "scored")

    def marked(cell: Cell) -> Cell:
        if scored[cell.metric] < 2:
            return cell
        views = {
            scorer: replace(view, best=_printed(view.score) == best[cell.metric, scorer])
            for scorer, view in cell.views.items()
        }
        return replace(cell, views=views)

    return tuple(
        replace(row, cells=tuple(marked(cell) for cell in row.cells), average=row.average and marked(row.average))
        for row in rows
    )


def _measurement(measured: Mapping[tuple[str, str], Measurement | None], row: str, metric: str) -> Measurement | None:
    try:
        return measured[row, metric]
    except KeyError as err:
        what = f"the table asks for `{row}/{metric}`, which is neither measured nor said to be missing"
        raise BadInput(what, "table", f"give the input `score:{row}/{metric}`, or leave the row or column out") from err


def _scored_by(measurement: Measurement, scorer: str) -> Score:
    return measurement.scores[scorer if scorer in measurement.scores else measurement.headline]


def _scorers(measured: Iterable[Measurement | None], headline: str) -> tuple[str, ...]:
    names = {scorer for measurement in measured if measurement for scorer in measurement.scores}
    known = [name for name in _SCORER_ORDER if name in names]
    return tuple(dict.fromkeys((headline, *known, *sorted(names))))


def _weights(columns: Sequence[TableColumn], rule: AverageRule) -> list[float]:
    """What each column of an average weighs; none where there is no average."""
    columns = [column for column in columns if column.averaged]
    if rule == "none" or not columns:
        return []
    if rule == "columns":
        return [1 / len(columns)] * len(columns)
    benchmarks = [column.benchmark or column.metric for column in columns]
    sizes = Counter(benchmarks)
    return [1 / len(sizes) / sizes[benchmark] for benchmark in benchmarks]


def _printed(score: Score) -> float:
    return float(points(score.value))


def _refuse_twins(kind: str, names: Iterable[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise BadInput(f"two {kind}s of the table are called `{twins[0]}`", "table", f"give each {kind} its own name")
