"""The page of the trainings: what each cost, and its curves.

training.html           the page
data/trainings.js       the table and the points, as a call that registers them
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tulu_pipeline.reporting.pages import DATA, INDEX, copy_viewer, script
from tulu_pipeline.reporting.trainings import LEGEND, Training, shown_columns, thinned

# Of the points that a training may have: how a reader finds them, and how they are drawn.
CURVES = (
    {"name": "loss", "title": "loss"},
    {"name": "held_out_loss", "title": "held-out loss"},
    {"name": "grad_norm", "title": "gradient norm"},
    {"name": "learning_rate", "title": "learning rate"},
    {"name": "tokens_per_second", "title": "tokens/s"},
)


def write_training_page(title: str, trainings: Sequence[Training], folder: Path, *, data: bool) -> None:
    """Writes the page into the report's folder.

    Args:
        title: of the report.
        trainings: in the order of the table.
        folder: of the report.
        data: there is a page of the data, too.
    """
    copy_viewer(folder, results=True, data=data, training=True)
    columns = shown_columns(trainings)
    known = [curve for curve in CURVES if any(training.curves.get(curve["name"]) for training in trainings)]
    document = {
        "title": title,
        "headings": [column.heading for column in columns],
        "curves": known,
        "lines": [
            {
                "name": training.row.name,
                "label": training.row.label,
                "base_model": training.row.base_model,
                "cells": None if training.cost is None else [column.text(training.cost) for column in columns],
                "curves": {
                    curve["name"]: _points(training, curve["name"])
                    for curve in known
                    if training.curves.get(curve["name"])
                },
                "notes": list(training.notes),
                "addresses": [each for each in training.addresses if each.startswith(("http://", "https://"))],
            }
            for training in trainings
        ],
        "notes": list(LEGEND),
        "provenance": {training.row.name: dict(training.provenance) for training in trainings if training.provenance},
        "results_page": INDEX,
    }
    (folder / DATA / "trainings.js").write_text(script("trainings", document), encoding="ascii")


def _points(training: Training, curve: str) -> list[list[Any]]:
    return [[step, float(f"{value:.6g}")] for step, value in thinned(training.curves[curve]) if math.isfinite(value)]
