"""The table as a picture: per metric, each model's value with its 95 % interval, the untuned model as a line."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from tulu_pipeline.reporting import palette
from tulu_pipeline.reporting.table import Cell, Row, Table, View
from tulu_pipeline.reporting.text import empty_text, items_text

_PANELS_PER_LINE = 4
_PANEL_WIDTH_INCHES = 2.35
# A long list of models reads better beside one line of narrow panels than twice.
_MANY_ROWS = 8
_PANELS_PER_LONG_LINE = 7
_NARROW_PANEL_WIDTH_INCHES = 1.75
_ROW_HEIGHT_INCHES = 0.3
_CHARACTERS_PER_INCH = 11.5  # of a heading
DPI = 200
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so the bytes do not hang on the machine's fonts
    "font.size": 8,
    "axes.edgecolor": palette.FAINT,
    "axes.labelcolor": palette.INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.linewidth": 0.8,
    "text.color": palette.INK,
    "xtick.color": palette.NEUTRAL,
    "ytick.color": palette.INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def write_figure(table: Table, path: Path) -> None:
    """Writes a PNG of the table's headline scorer; the same table gives the same bytes under one matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        headings = table.headings()
        places = _places(table)
        long = len(places) > _MANY_ROWS
        lines = math.ceil(len(headings) / (_PANELS_PER_LONG_LINE if long else _PANELS_PER_LINE))
        per_line = math.ceil(len(headings) / lines)
        width = _NARROW_PANEL_WIDTH_INCHES if long else _PANEL_WIDTH_INCHES
        height = (_ROW_HEIGHT_INCHES * (places[-1][1] + 1) + 0.85) * lines + 0.7
        figure = Figure(
            figsize=(1.7 + width * per_line, height),
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, hspace=0.04),
        )
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, per_line, squeeze=False)
        counts = [items_text(count) for count in table.items_per_column()]
        for index, axes in enumerate(grid.flat):
            if index >= len(headings):
                axes.set_axis_off()
                continue
            _panel(axes, table, places, index)
            count = f"n = {counts[index]}" if index < len(counts) and counts[index] else " "
            axes.set_title(textwrap.fill(headings[index], int(width * _CHARACTERS_PER_INCH)), loc="left", pad=17)
            axes.annotate(
                count, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=7,
                color=palette.NEUTRAL,
            )  # fmt: skip
            _name_rows(axes, table, places, visible=index % per_line == 0)
        figure.suptitle(table.title, x=0.012, ha="left", fontsize=11, fontweight="bold")
        figure.supxlabel(
            f"points with 95 % intervals over items, scored as {table.headline} · dashed: the untuned model · "
            "blue raised, orange lowered, pale where the paired difference is within noise",
            x=0.012,
            ha="left",
            fontsize=7,
            color=palette.NEUTRAL,
        )
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _places(table: Table) -> list[tuple[Row, float]]:
    """Each row with its height on the vertical axis, groups half a row apart."""
    places = []
    height = 0.0
    for number, (_, rows) in enumerate(table.groups()):
        height += 0.7 if number else 0.0
        for row in rows:
            places.append((row, height))
            height += 1
    return places


def _panel(axes: Any, table: Table, places: list[tuple[Row, float]], index: int) -> None:
    shown = [(row, height, row.all_cells()[index]) for row, height in places]
    _reference_lines(axes, table, shown)
    ends = []
    for row, height, cell in shown:
        view = cell.views.get(table.headline)
        if view is None:
            axes.text(
                0.02, height, empty_text(cell), transform=axes.get_yaxis_transform(), va="center", fontsize=7,
                style="italic", color=palette.NEUTRAL,
            )  # fmt: skip
            continue
        ends += [100 * end for end in (view.score.low, view.score.value, view.score.high) if end is not None]
        _dot(axes, height, view, untuned=row.spec.untuned)
    if ends:
        margin = max(1.0, 0.07 * (max(ends) - min(ends)))
        axes.set_xlim(max(-1.5, min(ends) - margin), min(101.5, max(ends) + margin))
    axes.set_ylim(places[-1][1] + 0.6, -0.6)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=palette.FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="both", length=0)


def _reference_lines(axes: Any, table: Table, shown: list[tuple[Row, float, Cell]]) -> None:
    for row, _, cell in shown:
        view = cell.views.get(table.headline)
        if view is None or not row.spec.untuned:
            continue
        heights = [height for other, height, _ in shown if other.spec.base_model == row.spec.base_model]
        axes.vlines(
            100 * view.score.value, min(heights) - 0.45, max(heights) + 0.45,
            color=palette.NEUTRAL, linewidth=0.9, linestyle=(0, (3, 3)),
        )  # fmt: skip


def _dot(axes: Any, height: float, view: View, *, untuned: bool) -> None:
    score = view.score
    edge, face = _colors(view)
    if score.low is not None and score.high is not None:
        axes.hlines(height, 100 * score.low, 100 * score.high, color=edge, linewidth=1.5, zorder=3)
    axes.plot(
        100 * score.value, height, marker="D" if untuned else "o", markersize=5 if untuned else 6.5,
        markerfacecolor="white" if untuned else face, markeredgecolor=edge, markeredgewidth=1.3, zorder=4,
    )  # fmt: skip


def _colors(view: View) -> tuple[str, str]:
    if view.change is None or view.change.direction == "same":
        return palette.NEUTRAL, palette.FAINT
    if view.change.better:
        return palette.RAISED, palette.RAISED if view.change.clear else palette.RAISED_PALE
    return palette.LOWERED, palette.LOWERED if view.change.clear else palette.LOWERED_PALE


def _name_rows(axes: Any, table: Table, places: list[tuple[Row, float]], *, visible: bool) -> None:
    many_bases = len(table.groups()) > 1
    names = [
        f"{row.spec.base_model} · {row.spec.label}" if many_bases and row.spec.base_model != row.spec.label
        else row.spec.label
        for row, _ in places
    ]  # fmt: skip
    axes.set_yticks([height for _, height in places], names if visible else [])
