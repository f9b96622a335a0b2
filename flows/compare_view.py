"""A comparison of two models, in the terminal."""

from __future__ import annotations

from typing import Any

from tulu_pipeline.reporting.comparison import ComparedMetric, ModelComparison
from tulu_pipeline.reporting.text import STAND_IN, points

_ALPHA = 0.05
_SHOWN_IDS = 8
_TESTS = {
    "mcnemar": "McNemar, exact",
    "permutation": "permutation",
    "clustered permutation": "permutation of groups",
}


def print_comparison(comparison: ModelComparison, console: Any, scorer: str = "") -> None:
    """The table of the metrics, what it means, and the items that only one got right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"A = {comparison.first}, B = {comparison.second}"),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("metric")
    for heading in ("n", "A", "B", "A − B", "95 % interval", "p", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("test", style="dim")
    for heading in ("could show", "only A", "only B"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in comparison.metrics:
        table.add_row(*_cells(each, scorer))
    console.print(table)
    for line in _notes(comparison, scorer):
        console.print(Text(line, style="dim"), soft_wrap=True)
    for each in comparison.metrics:
        for name, ids in (("A", each.result.only_first), ("B", each.result.only_second)):
            if ids:
                more = f" … {len(ids) - _SHOWN_IDS:,} more: --json" if len(ids) > _SHOWN_IDS else ""
                shown = Text(f"{each.title}, only {name}: ", style="dim") + Text(", ".join(ids[:_SHOWN_IDS]) + more)
                console.print(shown, soft_wrap=True)


def _cells(each: ComparedMetric, scorer: str) -> list[Any]:
    from rich.text import Text

    result = each.result
    mark = STAND_IN if scorer and each.scorer != scorer else ""
    title = each.title + (" ↓" if each.lower_is_better else "") + mark
    difference = signed(result.first - result.second)
    interval = "–"
    if result.difference is not None:
        interval = f"{signed(result.difference.low)} to {signed(result.difference.high)}"
    return [
        Text(title),
        f"{result.n:,}",
        points(result.first),
        points(result.second),
        Text(difference, style="bold" if each.p_holm < _ALPHA else ""),
        interval,
        p_text(result.p),
        p_text(each.p_holm),
        _TESTS[result.test],
        "–" if result.detectable is None else points(result.detectable),
        f"{len(result.only_first):,}",
        f"{len(result.only_second):,}",
    ]


def _notes(comparison: ModelComparison, scorer: str) -> list[str]:
    lines = [
        "Differences in points, item by item; bold where p (Holm) is below 0.05. Intervals cover the choice of items, "
        "not training seeds.",
        "could show: the least true difference that a set like this finds in 4 of 5 cases at 5 %.",
        "only A, only B: items that one did better.",
    ]
    for each in comparison.metrics:
        if each.result.bootstrap is not None and each.result.difference is not None:
            low, high = map(signed, each.result.bootstrap)
            lines.append(f"{each.title}: paired bootstrap {low} to {high}.")
        if each.result.undefined:
            lines.append(
                f"{each.title}: INCOMPLETE: {each.result.undefined:,} items without a score of both, left out."
            )
    if stand_ins := [each.title for each in comparison.metrics if scorer and each.scorer != scorer]:
        lines.append(f"{STAND_IN} has no {scorer} scorer; its own headline scorer stands in: {', '.join(stand_ins)}.")
    lines.extend(f"{metric} is not compared: {why}." for metric, why in comparison.left_out.items())
    return lines


def signed(value: float) -> str:
    """A difference in points with its sign; ±0.0 for what rounds to nothing."""
    text = points(abs(value))
    return f"±{text}" if text == "0.0" else f"{'+' if value > 0 else '−'}{text}"


def p_text(p: float) -> str:
    """A p-value as papers print it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
