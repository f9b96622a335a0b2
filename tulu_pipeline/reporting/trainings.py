"""What the trainings of an experiment cost and how they went: a table, and points for curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

from tulu_pipeline.reporting.table import TableRow
from tulu_pipeline.reporting.text import inline, markdown_line

NONE = "–"
POINTS = 300

Points = Sequence[tuple[int, float]]  # after step, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A training in numbers; None for what was not measured.

    Attributes:
        steps: optimizer steps.
        epochs: passes over the mixture.
        tokens, supervised_tokens: trained on, without padding.
        seconds: of all steps; without starting, saving, evaluating and exporting.
        ranks: processes, one per GPU.
        device: what each of them ran on.
        mfu: model FLOPs utilization.
        memory_bytes: of the fullest rank.
        loss_first, loss_last: of the first step, and the mean over the last twentieth.
        held_out_loss_first, held_out_loss_last: before the first step and after the last.
    """

    steps: int | None = None
    epochs: float | None = None
    tokens: int | None = None
    supervised_tokens: int | None = None
    seconds: float | None = None
    ranks: int | None = None
    device: str = ""
    mfu: float | None = None
    memory_bytes: int | None = None
    loss_first: float | None = None
    loss_last: float | None = None
    held_out_loss_first: float | None = None
    held_out_loss_last: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One finetuning.

    Attributes:
        row: of the table of results.
        cost: in numbers; None where it could not be made.
        curves: by the name of a `Curve`.
        notes: what the training said of itself.
        addresses: where trackers show it.
        provenance: file to its sha256.
    """

    row: TableRow
    cost: Cost | None
    curves: Mapping[str, Points] = field(default_factory=dict)
    notes: Sequence[str] = ()
    addresses: Sequence[str] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the table of costs."""

    heading: str
    text: Callable[[Cost], str]


def _number(value: float | None, form: str = ",.0f") -> str:
    return "" if value is None else format(value, form)


def _change(first: float | None, last: float | None) -> str:
    return "" if first is None or last is None else f"{first:.3f} → {last:.3f}"


def _speed(cost: Cost) -> str:
    return f"{cost.tokens / cost.seconds:,.0f}" if cost.tokens and cost.seconds else ""


def _time(seconds: float | None) -> str:
    """`1.5 h`, `12 min`, `40 s`."""
    if seconds is None:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"


COLUMNS = (
    Column(heading="Steps", text=lambda cost: _number(cost.steps)),
    Column(heading="Epochs", text=lambda cost: _number(cost.epochs, ".3g")),
    Column(heading="Tokens", text=lambda cost: _number(cost.tokens)),
    Column(heading="Supervised", text=lambda cost: _number(cost.supervised_tokens)),
    Column(heading="Time", text=lambda cost: _time(cost.seconds)),
    Column(heading="Tokens/s", text=_speed),
    Column(heading="MFU", text=lambda cost: _number(cost.mfu, ".1%")),
    Column(heading="Memory", text=lambda cost: f"{cost.memory_bytes / 2**30:.1f} GiB" if cost.memory_bytes else ""),
    Column(heading="Hardware", text=lambda cost: f"{cost.ranks} × {cost.device}" if cost.ranks else cost.device),
    Column(heading="Loss", text=lambda cost: _change(cost.loss_first, cost.loss_last)),
    Column(heading="Held-out loss", text=lambda cost: _change(cost.held_out_loss_first, cost.held_out_loss_last)),
)
LEGEND = (
    "Loss: of the first step, and the mean over the last twentieth of the steps, as the recipe's loss norm defines it.",
    "Held-out loss: nats per supervised token over conversations of the mixture that are not trained on, before the "
    "first step and after the last.",
    "Time: of the steps alone, without starting, saving, evaluating and exporting. Memory: of the fullest rank.",
)


def shown_columns(trainings: Sequence[Training]) -> list[Column]:
    """Those that have something to say of some training."""
    costs = [training.cost for training in trainings if training.cost is not None]
    return [column for column in COLUMNS if any(column.text(cost) for cost in costs)] or [COLUMNS[0]]


def trainings_to_markdown(title: str, trainings: Sequence[Training]) -> str:
    """The table of costs in Markdown, and what its columns mean."""
    columns = shown_columns(trainings)
    lines = [
        markdown_line("Model", *(column.heading for column in columns)),
        markdown_line(":--", *("--:" for _ in columns)),
    ]
    for training in trainings:
        cost = training.cost
        missing = ["missing", *(NONE for _ in columns[1:])]
        cells = missing if cost is None else [inline(column.text(cost)) or NONE for column in columns]
        lines.append(markdown_line(inline(training.row.name), *cells))
    notes = "\n".join(f"- {note}" for note in LEGEND)
    return "\n\n".join([f"# {inline(title)}: training", "\n".join(lines), notes]) + "\n"


def trainings_to_csv(trainings: Sequence[Training]) -> str:
    """One line per training, unrounded; absent values are empty, never zero."""
    names = [each.name for each in fields(Cost)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ("model", "base_model", "mixture", "status", *names), lineterminator="\n")
    writer.writeheader()
    for training in trainings:
        row, cost = training.row, training.cost
        known = {} if cost is None else {name: getattr(cost, name) for name in names}
        writer.writerow(
            {
                "model": row.name,
                "base_model": row.base_model,
                "mixture": row.mixture,
                "status": "missing" if cost is None else "trained",
                **known,
            }
        )
    return stream.getvalue()


def thinned(points: Points, most: int = POINTS) -> list[tuple[int, float]]:
    """At most so many points: means of neighbors, at the last step of each."""
    if len(points) <= most:
        return list(points)
    edges = [round(index * len(points) / most) for index in range(most + 1)]
    groups = (points[start:end] for start, end in pairwise(edges))
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
