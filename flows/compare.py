"""`tulu compare`: finds the scores of two models and compares them, item by item."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.catalog import BENCHMARKS
from flows.session import Request, Session, prepare, selected_names
from tulu_pipeline.errors import BadInput, unknown_name

if TYPE_CHECKING:
    from tulu_pipeline.reporting.comparison import ModelComparison
    from tulu_pipeline.reporting.table import TableColumn

_METRICS = "metrics.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """Score folders by metric; None for one that is not made."""

    name: str
    folders: dict[str, Path | None]


def compare_rows(
    first: str,
    second: str,
    *,
    experiment: str | None = None,
    metrics: Collection[str] = (),
    scorer: str = "",
    store: str | None = None,
) -> ModelComparison:
    """Compares two models.

    Args:
        first: a row of the experiment, a selection of its artifacts (`score[tiny+facts/gsm_cot]`), or a folder with
            `metrics.json` and `items.jsonl`.
        second: likewise.
        experiment: whose rows; None where both are folders.
        metrics: only these; empty for all that both have.
        scorer: which compares; "" takes each metric's headline.
        store: root of the store; None takes TULU_STORE or `./store`.

    Raises:
        NotFound: no such row, artifact or metric. BadInput: nothing to compare, or different items.
    """
    from tulu_pipeline.reporting.comparison import Pair, compare_models
    from tulu_pipeline.reporting.records import read_measurement

    session = None
    if experiment is not None:
        session = prepare(Request(experiment=experiment, store=store))
    ours, theirs = _scores(first, session), _scores(second, session)
    known = dict.fromkeys((*ours.folders, *theirs.folders))
    for metric in metrics:
        if metric not in known:
            raise unknown_name("metric", metric, known, f"what {first} or {second} was asked")
    columns = _columns(session)
    pairs, left_out = [], {}
    for metric in known:
        if metrics and metric not in metrics:
            continue
        lacking = [scores for scores in (ours, theirs) if scores.folders.get(metric) is None]
        if lacking:
            why = [
                f"{each.name} {'has not been scored' if metric in each.folders else 'was not asked'}"
                for each in lacking
            ]
            left_out[metric] = " and ".join(why)
            continue
        one, other = ours.folders[metric], theirs.folders[metric]
        assert one is not None, metric
        assert other is not None, metric
        column = columns.get(metric)
        pair = Pair(
            metric=metric,
            title=column.title if column else metric,
            first=read_measurement(one),
            second=read_measurement(other),
            lower_is_better=column.lower_is_better if column else False,
        )
        pairs.append(pair)
    if not pairs:
        reasons = "; ".join(f"{metric}: {reason}" for metric, reason in left_out.items())
        raise BadInput(f"nothing to compare: {reasons}", f"{first}, {second}", _fix(experiment))
    return compare_models(ours.name, theirs.name, pairs, scorer=scorer, left_out=left_out)


def _fix(experiment: str | None) -> str:
    return f"`tulu run {experiment}` makes it" if experiment else "take two folders of one metric"


def _scores(name: str, session: Session | None) -> _Scores:
    folder = Path(name)
    if (folder / _METRICS).is_file():
        return _Scores(name=name, folders={_metric(folder): folder})
    if session is None:
        raise BadInput(
            f"`{name}` is no folder with a `{_METRICS}`",
            "tulu compare",
            "name its experiment (--experiment NAME), or give the folder of a score: `tulu path 'score[ROW/METRIC]'`",
        )
    scored = {each: each.removeprefix("score[").removesuffix("]") for each in session.plan.nodes}
    scored = {each: cell for each, cell in scored.items() if each.startswith("score[")}
    if "[" in name:
        cells = [scored[each] for each in selected_names(session, name) if each in scored]
    else:
        cells = [cell for cell in scored.values() if cell.rpartition("/")[0] == name]
    rows = {cell.rpartition("/")[0] for cell in cells}
    if not rows:
        known = {cell.rpartition("/")[0] for cell in scored.values()}
        raise unknown_name("row", name, known, f"experiment `{session.experiment.name}`")
    if len(rows) > 1:
        raise BadInput(f"`{name}` is of {len(rows)} rows", session.experiment.name, "select the scores of one row")
    row = rows.pop()
    return _Scores(name=row, folders={cell.rpartition("/")[2]: session.find_folder(f"score[{cell}]") for cell in cells})


def _metric(folder: Path) -> str:
    from tulu_pipeline.artifacts.json_lines import from_line
    from tulu_pipeline.reporting.records import MetricsRecord

    path = folder / _METRICS
    return from_line(path.read_bytes(), MetricsRecord, str(path)).metric


def _columns(session: Session | None) -> dict[str, TableColumn]:
    """What metrics are called, and which of two values is better: of the experiment, else of the project.

    A folder of scores does not say who judged: without an experiment a judged metric goes by its id.
    """
    from tasks.tabulate import TabulateParams
    from tulu_pipeline.reporting.table import TableColumn

    columns = {
        setting.metric: TableColumn(
            metric=setting.metric,
            title=setting.metric if setting.judge and setting.judge.called else setting.title,
            lower_is_better=setting.lower_is_better,
        )
        for benchmark in BENCHMARKS.all()
        for setting in benchmark.settings
    }
    for node in session.plan.nodes.values() if session else ():
        if isinstance(node.artifact.params, TabulateParams):
            columns |= {column.metric: column for column in node.artifact.params.columns}
    return columns
