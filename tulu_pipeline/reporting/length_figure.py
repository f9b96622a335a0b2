"""Figures 2 and 6 of the paper as one picture: win rate against unique tokens, and against the false evaluator's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tulu_pipeline.reporting import palette
from tulu_pipeline.reporting.figure import DPI, STYLE
from tulu_pipeline.reporting.length_text import NONE, interval_text
from tulu_pipeline.reporting.lengths import LengthAnalysis, Quantity, quantity_of

_PANEL_INCHES = (3.6, 3.1)
_MOST_LABELS = 16
_PERCENT = ("win_rate", "false_win_rate")


def write_length_figure(analysis: LengthAnalysis, path: Path) -> None:
    """Writes a PNG; the same analysis gives the same bytes under one matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        width, height = _PANEL_INCHES
        figure = Figure(figsize=(2 * width, height + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        _panel(left, analysis, "unique_tokens", "win_rate")
        left.set_xlabel("mean unique tokens of an answer")
        left.set_ylabel(f"{analysis.judged}, %")
        _panel(right, analysis, "win_rate", "false_win_rate")
        right.set_xlabel(f"{analysis.judged}, %")
        right.set_ylabel("win rate by unique tokens, %")
        right.axline((0, 0), slope=1, color=palette.FAINT, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
        figure.suptitle("Length and preference", x=0.012, ha="left", fontsize=11, fontweight="bold")
        count = len(analysis.models)
        models = "1 model" if count == 1 else f"{count} models"
        said = "line: least squares" if analysis.enough() else "too few for a trend: no line is drawn"
        figure.supxlabel(
            f"{models}, {said} · bars: 95 % intervals over items · dashed: both evaluators alike", x=0.012, ha="left",
            fontsize=7, color=palette.NEUTRAL,
        )  # fmt: skip
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def _panel(axes: Any, analysis: LengthAnalysis, across: Quantity, up: Quantity) -> None:
    other = across if up == "win_rate" else up
    found = analysis.correlation("pearson", other)
    value = NONE if found.value is None else f"{found.value:.3f}"
    figure = "as Figure 2" if other == "unique_tokens" else "as Figure 6"
    axes.set_title(f"{figure}: Pearson {value}, 95 % interval {interval_text(found)}", loc="left", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="both", length=0)
    axes.grid(color=palette.FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    x, y = ([_shown(quantity_of(model, each), each) for model in analysis.models] for each in (across, up))
    _frame(axes, x, y, across, up)
    for index, model in enumerate(analysis.models):
        for quantity, bar in ((across, "xerr"), (up, "yerr")):
            estimate = {"win_rate": model.win_rate, "false_win_rate": model.false_win_rate}.get(quantity)
            if estimate is not None and estimate.low is not None and estimate.high is not None:
                reach = [[100 * (estimate.value - estimate.low)], [100 * (estimate.high - estimate.value)]]
                axes.errorbar(x[index], y[index], **{bar: reach}, color=palette.RAISED_PALE, linewidth=1.2, zorder=2)
        if len(analysis.models) <= _MOST_LABELS:
            right = len(x) > 1 and 2 * x[index] > min(x) + max(x)  # where a name would run out of the panel
            # A model's name is text: a dollar sign in it starts no formula.
            axes.annotate(
                model.label, (x[index], y[index]), (-6 if right else 6, 4), textcoords="offset points", fontsize=7,
                ha="right" if right else "left", parse_math=False,
            )  # fmt: skip
    axes.plot(x, y, "o", markersize=5, color=palette.RAISED, zorder=3)
    if analysis.enough() and found.value is not None:
        from scipy.stats import linregress

        line = linregress(x, y)
        ends = [min(x), max(x)]
        axes.plot(ends, [line.intercept + line.slope * each for each in ends], color=palette.NEUTRAL, linewidth=1)


def _frame(axes: Any, x: list[float], y: list[float], across: Quantity, up: Quantity) -> None:
    """The span of each axis: all points with room around them, no less than 0 %, no more than 100 %."""
    for values, quantity, limit in ((x, across, axes.set_xlim), (y, up, axes.set_ylim)):
        if values:
            room = max(5.0, 0.12 * (max(values) - min(values)))
            low, high = max(0.0, min(values) - room), max(values) + room
            limit(low, min(102.0, high) if quantity in _PERCENT else high)


def _shown(value: float, quantity: Quantity) -> float:
    return 100 * value if quantity in _PERCENT else value
