"""The tables in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import rich.box
import rich.table
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
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
_UNBOUNDED = 10_000  # columns of characters


def render_table(table: Table, scorer: str = "") -> FittedTable:
    """The table for `rich` to print, as `scorer` sees it; "" stands for the headline scorer.

    Blue is raised and orange lowered against the untuned model, with an arrow beside it, so nothing is lost where
    there is no color.
    """
    return FittedTable(table, scorer or table.headline)


class FittedTable:
    """A table that goes on below where the terminal is too narrow for all of its columns: no number is cut off."""

    def __init__(self, table: Table, scorer: str) -> None:
        self._table, self._scorer = table, scorer
        self._headers = list(_headers(table))
        self._cells = {row.spec.name: [_cell(cell, scorer) for cell in row.all_cells()] for row in table.rows}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table, scorer = self._table, self._scorer
        yield Text(f"{table.title}, scored as {scorer}" if len(table.scorers) > 1 else table.title, style="bold")
        for columns in self._parts(console, options):
            wide = self._part(columns)
            yield wide if _width_of(wide, console, options) <= options.max_width else self._part(columns, narrow=True)
        told = (*legend(table), *_stand_ins(table, scorer), *_counted(table), *table.notes)
        yield Text("\n".join(told), style="dim")

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[range]:
        """Columns that stand beside each other, as many as fit; one at least."""
        start = 0
        for end in range(1, len(self._headers)):
            part = self._part(range(start, end + 1), narrow=True)
            if _width_of(part, console, options) > options.max_width:
                yield range(start, end)
                start = end
        yield range(start, len(self._headers))

    def _width(self, index: int) -> int:
        """The least: a header breaks between words, a cell nowhere."""
        cells = [cells[index].plain for cells in self._cells.values()]
        return max(map(cell_len, (*self._headers[index].plain.split(), *cells)))

    def _part(self, columns: range, *, narrow: bool = False) -> rich.table.Table:
        shown = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        shown.add_column("model", no_wrap=True)
        for index in columns:
            shown.add_column(self._headers[index], justify="right", width=self._width(index) if narrow else None)
        for base, rows in self._table.groups():
            shown.add_section()
            if base:
                shown.add_row(Text(base, style="bold"))
            for row in rows:
                cells = self._cells[row.spec.name]
                label = Text(f"  {row.spec.label}" if base else row.spec.label)
                shown.add_row(label, *(cells[index] for index in columns))
        return shown


def _width_of(part: rich.table.Table, console: Console, options: ConsoleOptions) -> int:
    return console.measure(part, options=options.update(width=_UNBOUNDED)).maximum


def _headers(table: Table) -> Iterator[Text]:
    counts = [items_text(count) for count in table.items_per_column()]
    for index, heading in enumerate(table.headings()):
        header = Text(heading, style="bold")
        if index < len(counts) and counts[index]:
            header.append(f"\nn={counts[index]}", style="dim not bold")
        yield header


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
