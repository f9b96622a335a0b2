"""How long the conversations of each dataset are, as a picture: one histogram per dataset, over one scale."""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

from tulu_pipeline.reporting import palette
from tulu_pipeline.reporting.data_table import DataLine, DataTable
from tulu_pipeline.reporting.figure import DPI, STYLE
from tulu_pipeline.tokens.statistics import LENGTH_BINS, Statistics

_PANELS_PER_LINE = 4
_PANEL_INCHES = (2.45, 1.55)
_TICKS = (16, 64, 256, 1024, 4096)
_TITLE_CHARACTERS = 34


def write_lengths(table: DataTable, path: Path) -> None:
    """Writes a PNG; the same table gives the same bytes under one matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    per_line = min(_PANELS_PER_LINE, len(table.lines))
    lines = math.ceil(len(table.lines) / per_line)
    width, height = _PANEL_INCHES
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(
            figsize=(max(width * per_line, 2 * width), height * lines + 0.6),
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, hspace=0.04),
        )
        FigureCanvasAgg(figure)
        grid = figure.subplots(lines, per_line, squeeze=False, sharex=True)
        for index, axes in enumerate(grid.flat):
            if index < len(table.lines):
                _panel(axes, table.lines[index])
                axes.tick_params(labelbottom=index + per_line >= len(table.lines))  # the lowest of its column
            else:
                axes.set_axis_off()
        figure.suptitle("Length of the conversations", x=0.012, ha="left", fontsize=11, fontweight="bold")
        figure.supxlabel(
            f"tokens of all messages ({table.tokenizer}), share of the conversations per bin · dashed: where training "
            "cuts",
            x=0.012,
            ha="left",
            fontsize=7,
            color=palette.NEUTRAL,
        )
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _panel(axes: Any, line: DataLine) -> None:
    title = textwrap.shorten(line.spec.label, _TITLE_CHARACTERS, placeholder="…")
    axes.set_title(title, loc="left", pad=12 if line.statistics else 4)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="both", length=0)
    axes.set_yticks([])
    axes.set_xticks([LENGTH_BINS.index(tick) + 1 for tick in _TICKS], [f"{tick:,}" for tick in _TICKS])
    axes.set_xlim(0, len(LENGTH_BINS) + 1)
    if line.statistics is None:
        axes.text(0.02, 0.5, "missing", transform=axes.transAxes, fontsize=7, style="italic", color=palette.NEUTRAL)
        return
    _bars(axes, line.statistics)
    sample = " (sample)" if line.spec.sample else ""
    axes.annotate(
        f"n = {line.statistics.instances:,}{sample}", (0, 1), (0, 3), xycoords="axes fraction",
        textcoords="offset points", fontsize=7, color=palette.NEUTRAL,
    )  # fmt: skip


def _bars(axes: Any, statistics: Statistics) -> None:
    heights = [count / max(1, statistics.instances) for count in statistics.lengths]
    axes.bar([index + 0.5 for index in range(len(heights))], heights, width=0.92, color=palette.RAISED)
    axes.set_ylim(0, 1.12 * max([*heights, 1e-9]))
    axes.axvline(
        cut_position(statistics.max_length_tokens), color=palette.NEUTRAL, linewidth=0.9, linestyle=(0, (3, 3))
    )


def cut_position(tokens: int) -> float:
    """Where a length lies on an axis that has a unit per bin of `LENGTH_BINS`."""
    ends = (0, *LENGTH_BINS)
    for index, (start, end) in enumerate(pairwise(ends)):
        if tokens <= end:
            return index + (tokens - start) / (end - start)
    return float(len(LENGTH_BINS))
