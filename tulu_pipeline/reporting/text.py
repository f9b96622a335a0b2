"""A table as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal

from tulu_pipeline.reporting.table import AVERAGE, Cell, Row, Table, View, is_stand_in
from tulu_pipeline.scoring.flags import COUNTED_FLAGS, flag_order
from tulu_pipeline.scoring.length_control import LC_MINIMAL

NOT_APPLICABLE = "–"
STAND_IN = "†"
INCOMPLETE = "‡"
_SHOWN_MISSING = 10
_SHOWN_INCOMPLETE = 20

CSV_FIELDS = (
    "row", "label", "base_model", "mixture", "untuned", "metric", "title", "view", "status",
    "percent", "low_percent", "high_percent", "standard_error_percent", "n", "scorer", "method",
    "change_points", "change_low_points", "change_high_points", "direction", "clear", "best", "published_percent",
    "undefined", *COUNTED_FLAGS, "other_flags",
)  # fmt: skip
GROUP_FIELDS = ("row", "metric", "group", "n", "percent", "low_percent", "high_percent")


def points(value: float) -> str:
    """A fraction as points with one decimal: 0.52 -> `52.0`; a tie goes away from zero, as in the report's pages."""
    return str(Decimal(100 * value).quantize(Decimal("0.1"), ROUND_HALF_UP))


def plus_minus(view: View) -> str:
    """`±6.9`: from the value to the farther end of its interval, so that the printed range never falls short.

    "" for a value without an interval.
    """
    score = view.score
    if score.low is None or score.high is None:
        return ""
    return f"±{points(max(score.high - score.value, score.value - score.low))}"


def arrow(view: View) -> str:
    """▲ raised, ▼ lowered; △ ▽ where the interval of the change holds zero; "" without a change to tell."""
    if view.change is None or view.change.direction == "same":
        return ""
    pair = ("▲", "△") if view.change.direction == "raised" else ("▼", "▽")
    return pair[0] if view.change.clear else pair[1]


def empty_text(cell: Cell) -> str:
    """What a cell without a score prints."""
    return NOT_APPLICABLE if cell.status == "not_applicable" else cell.status


def flags_text(flags: Mapping[str, int]) -> str:
    """`no answer found 14, empty 1`; "" where nothing was odd."""
    return ", ".join(f"{flag.replace('_', ' ')} {flags[flag]:,}" for flag in flag_order(flags))


def items_text(counts: tuple[int, ...]) -> str:
    """The number of items of a column: `200`, or `198–200` where models differ."""
    if not counts:
        return ""
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"


def markdown_line(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def inline(text: str) -> str:
    """Text as Markdown shows it literally, in one line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(text.split()))


def signed_percent(value: float) -> str:
    """A fraction as `+1.3 %`, `−0.4 %`; ±0.0 % for what rounds to nothing."""
    text = f"{abs(100 * value):.1f} %"
    if text == "0.0 %":
        return f"±{text}"
    return f"+{text}" if value > 0 else f"−{text}"


def legend(table: Table) -> tuple[str, ...]:
    """What the marks of a table mean, in whole sentences."""
    lines = ["± reaches the farther end of the 95 % interval, which covers the choice of items, not training seeds."]
    if any(row.spec.untuned for row in table.rows):
        lines.append(
            "▲ raised and ▼ lowered against the untuned model of the same base; △ ▽ where the 95 % interval of the "
            "paired difference holds zero."
        )
    if any(column.lower_is_better for column in table.columns):
        lines.append("↓ less is better; colors tell what got better, arrows what got more.")
    if any(view.best for row in table.rows for cell in row.all_cells() for view in cell.views.values()):
        lines.append("Bold is the best of its column.")
    if any(cell.status == "not_applicable" for row in table.rows for cell in row.all_cells()):
        lines.append("– is not asked of untuned models, which therefore have no average.")
    lines.extend(_incomplete(table))
    missing = table.missing()
    if missing:
        more = f" and {len(missing) - _SHOWN_MISSING} more" if len(missing) > _SHOWN_MISSING else ""
        lines.append(f"Missing, and never filled in: {', '.join(missing[:_SHOWN_MISSING])}{more}.")
    if table.average_rule == "columns":
        lines.append("Average is the plain mean of the columns.")
    elif table.average_rule == "benchmarks":
        lines.append("Average is the mean over benchmarks, each the mean of its columns.")
    if LC_MINIMAL in table.scorers:
        lines.append(
            f"{LC_MINIMAL} is this project's own win rate at equal length, a logistic regression of two parameters; "
            "the length-controlled rate of AlpacaEval's leaderboard is another."
        )
    outside = [column.title for column in table.columns if not column.averaged]
    if outside and table.average_rule != "none":
        lines.append(f"Not part of it: {', '.join(outside)}.")
    return tuple(lines)


def _incomplete(table: Table) -> Iterator[str]:
    """What lacks for want of a reply that can be read: such a number is no result yet."""
    found = [(row, column, cell) for row in table.rows for column, cell in zip(table.columns, row.cells, strict=True)]
    lacking = [each for each in found if each[2].undefined]
    for row, column, cell in lacking[:_SHOWN_INCOMPLETE]:
        view = cell.views.get(table.headline)
        total = cell.undefined + ((view.score.n or 0) if view else 0)
        items = f"{cell.undefined:,} of {total:,} items without a score"
        yield f"{INCOMPLETE} INCOMPLETE: {_full_name(row)}, {column.title}: {items}."
    if len(lacking) > _SHOWN_INCOMPLETE:
        yield f"{INCOMPLETE} INCOMPLETE: {len(lacking) - _SHOWN_INCOMPLETE} more cells."


def to_markdown(table: Table) -> str:
    """The table in Markdown, once per scorer, with legend and notes underneath."""
    blocks = [f"# {inline(table.title)}"]
    for scorer in table.scorers:
        if len(table.scorers) > 1:
            blocks.append(f"## Scored as `{scorer}`")
        blocks.append(_grid(table, scorer))
        stand_ins = table.stand_ins(scorer)
        if stand_ins:
            names = ", ".join(inline(title) for title in stand_ins)
            blocks.append(f"{STAND_IN} has no `{scorer}` scorer; its own headline scorer stands in: {names}.")
    blocks.append("\n".join(f"- {inline(line)}" for line in (*legend(table), *table.notes)))
    blocks.extend(_counted(table))
    return "\n\n".join(blocks) + "\n"


def to_csv(table: Table) -> str:
    """One line per row, column and view, averages included, in points; absent values are empty, never zero."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(table))
    return stream.getvalue()


def groups_to_csv(table: Table) -> str:
    """One line per row, column and group of items, in points; "" where no benchmark has groups."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, GROUP_FIELDS, lineterminator="\n")
    for row in table.rows:
        for cell in row.cells:
            for group, score in cell.groups.items():
                if not stream.tell():
                    writer.writeheader()
                writer.writerow(
                    {
                        "row": row.spec.name,
                        "metric": cell.metric,
                        "group": group,
                        "n": score.n,
                        "percent": _percent(score.value),
                        "low_percent": _percent(score.low),
                        "high_percent": _percent(score.high),
                    }
                )
    return stream.getvalue()


def _counted(table: Table) -> Iterator[str]:
    """What was odd about the completions, counted: a section of its own."""
    lines = [
        markdown_line(
            inline(_full_name(row)),
            inline(column.title),
            inline(flags_text(cell.flags)),
        )
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if flags_text(cell.flags)
    ]
    if lines:
        yield "## What was odd about the answers"
        yield "\n".join([markdown_line("Model", "Column", "Items"), markdown_line(":--", ":--", ":--"), *lines])


def _grid(table: Table, scorer: str) -> str:
    headings = table.headings()
    counts = [items_text(count) for count in table.items_per_column()]
    counts += [""] * (len(headings) - len(counts))
    lines = [
        markdown_line("Model", *(inline(heading) for heading in headings)),
        markdown_line(":--", *("--:" for _ in headings)),
        markdown_line("*items*", *(f"*{count}*" if count else "" for count in counts)),
    ]
    for base, rows in table.groups():
        if base:
            lines.append(markdown_line(f"**{inline(base)}**", *("" for _ in headings)))
        lines.extend(
            markdown_line(inline(row.spec.label), *(_cell(cell, scorer) for cell in row.all_cells())) for row in rows
        )
    return "\n".join(lines)


def _cell(cell: Cell, scorer: str) -> str:
    view = cell.views.get(scorer)
    if view is None:
        return empty_text(cell)
    value = f"**{points(view.score.value)}**" if view.best else points(view.score.value)
    mark = (STAND_IN if is_stand_in(cell, scorer) else "") + (INCOMPLETE if cell.undefined else "")
    return " ".join(part for part in (f"{value}{mark}", plus_minus(view), arrow(view)) if part)


def _records(table: Table) -> Iterator[dict[str, object]]:
    titles = {column.metric: column.title for column in table.columns} | {AVERAGE: "Average"}
    for row in table.rows:
        for cell in row.all_cells():
            for scorer in table.scorers:
                yield _record(row, cell, titles[cell.metric], scorer)


def _record(row: Row, cell: Cell, title: str, scorer: str) -> dict[str, object]:
    record: dict[str, object] = {
        "row": row.spec.name,
        "label": row.spec.label,
        "base_model": row.spec.base_model,
        "mixture": row.spec.mixture,
        "untuned": _truth(row.spec.untuned),
        "metric": cell.metric,
        "title": title,
        "view": scorer,
        "status": cell.status,
        "published_percent": cell.published_percent,
    }
    if cell.status in ("scored", "undefined") and cell.metric != AVERAGE:
        others = {flag: count for flag, count in cell.flags.items() if flag not in COUNTED_FLAGS}
        record |= {flag: cell.flags.get(flag, 0) for flag in COUNTED_FLAGS}
        record |= {"undefined": cell.undefined, "other_flags": flags_text(others)}
    view = cell.views.get(scorer)
    if view is None:
        return record
    score, change = view.score, view.change
    record |= {
        "percent": _percent(score.value),
        "low_percent": _percent(score.low),
        "high_percent": _percent(score.high),
        "standard_error_percent": _percent(score.standard_error),
        "n": score.n,
        "scorer": score.scorer,
        "method": score.method,
        "best": _truth(view.best),
    }
    if change is not None:
        record |= {
            "change_points": _percent(change.value),
            "change_low_points": _percent(change.low),
            "change_high_points": _percent(change.high),
            "direction": change.direction,
            "clear": _truth(change.clear),
        }
    return record


def _full_name(row: Row) -> str:
    return f"{row.spec.base_model} / {row.spec.label}" if row.spec.base_model else row.spec.label


def _percent(value: float | None) -> str:
    """Points with six decimals at most: enough for any comparison, and free of binary noise."""
    # + 0.0 turns a negative zero into zero.
    return "" if value is None else f"{round(100 * value, 6) + 0.0:.6f}".rstrip("0").rstrip(".")


def _truth(value: bool) -> str:
    return "true" if value else "false"
