"""The tables in the terminal."""

from __future__ import annotations

from collections import Counter

import rich.box
import rich.table
from rich.text import Text

from tulu_pipeline.reporting.data_table import COLUMNS, DataTable, compare, data_legend
from tulu_pipeline.reporting.data_text import NONE, compared_text
from tulu_pipeline.reporting.table import Cell, Table, View, is_stand_in
from tulu_pipeline.reporting.text import (
    INCOMPLETE,
    STAND_IN,
    arrow,
    empty_text,
    flags_text,
    items_text,
    legend,
    plus_minus,
    points,
)

_RAISED = "#3B9BDC"  # lighter than the page's hues: terminals are mostly dark
_LOWERED = "#E8842C"


def render_table(table: Table, scorer: str = "") -> rich.table.Table:
    """The table for `rich` to print, as `scorer` sees it; "" stands for the headline scorer.

    Blue is raised and orange lowered against the untuned model, with an arrow beside it, so nothing is lost where
    there is no color.
    """
    scorer = scorer or table.headline
    counts = [items_text(count) for count in table.items_per_column()]
    shown = rich.table.Table(
        title=Text(f"{table.title}, scored as {scorer}" if len(table.scorers) > 1 else table.title),
        caption=Text("\n".join((*legend(table), *_stand_ins(table, scorer), *_counted(table), *table.notes))),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="dim",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("model", no_wrap=True)
    for index, heading in enumerate(table.headings()):
        header = Text(heading, style="bold")
        if index < len(counts) and counts[index]:
            header.append(f"\nn={counts[index]}", style="dim not bold")
        shown.add_column(header, justify="right", no_wrap=True)
    for base, rows in table.groups():
        shown.add_section()
        if base:
            shown.add_row(Text(base, style="bold"))
        for row in rows:
            shown.add_row(
                Text(f"  {row.spec.label}" if base else row.spec.label),
                *(_cell(cell, scorer) for cell in row.all_cells()),
            )
    return shown


def render_data_table(table: DataTable) -> rich.table.Table:
    """Table 1 for `rich` to print: each count with the paper's beside it, and how far they are apart."""
    shown = rich.table.Table(
        title=Text(table.title),
        caption=Text("\n".join(data_legend(table))),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="dim",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column("dataset", no_wrap=True)
    with_paper = any(line.spec.paper is not None for line in table.lines)
    for column in COLUMNS:
        shown.add_column(Text(column.heading, style="bold"), justify="right", no_wrap=True)
        if with_paper:
            shown.add_column(Text("paper", style="dim not bold"), justify="right", no_wrap=True)
    shown.add_column("license", no_wrap=True)
    for line in table.lines:
        cells = []
        for column in COLUMNS:
            ours, paper, difference = compared_text(compare(table, line, column), column)
            if line.statistics is None:
                first = "missing" if column is COLUMNS[0] else NONE
                cells.append(Text(first, style="italic yellow"))
            else:
                cells.append(Text(ours or NONE))
            if with_paper:
                beside = Text(paper or NONE, style="dim")
                beside.append(f" {difference}" if difference else "", style="dim italic")
                cells.append(beside)
        name = Text(line.spec.label)
        name.append("  sample" if line.spec.sample else "", style="yellow")
        shown.add_row(name, *cells, Text(line.spec.license, style="dim"))
    return shown


def _cell(cell: Cell, scorer: str) -> Text:
    view = cell.views.get(scorer)
    if view is None:
        return Text(empty_text(cell) + "  ", style="dim" if cell.status == "not_applicable" else "italic yellow")
    text = Text(points(view.score.value), style=_style(view))
    text.append(STAND_IN if is_stand_in(cell, scorer) else "")
    text.append(INCOMPLETE if cell.undefined else "", style="yellow")
    if interval := plus_minus(view):
        text.append(f" {interval}", style="dim not bold")
    text.append(f" {arrow(view) or ' '}")
    return text


def _style(view: View) -> str:
    weight = "bold" if view.best else ""
    if view.change is None or view.change.direction == "same":
        return weight
    return f"{weight} {_RAISED if view.change.better else _LOWERED}".strip()


def _stand_ins(table: Table, scorer: str) -> tuple[str, ...]:
    titles = table.stand_ins(scorer)
    if not titles:
        return ()
    return (f"{STAND_IN} has no {scorer} scorer; its own headline scorer stands in: {', '.join(titles)}.",)


def _counted(table: Table) -> tuple[str, ...]:
    flags = Counter[str]()
    for row in table.rows:
        for cell in row.cells:
            flags.update(cell.flags)
    counted = flags_text(flags)
    return (f"Odd answers in the whole table: {counted}; table.md tells where.",) if counted else ()
