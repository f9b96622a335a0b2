"""The page of the data: Table 1, lengths, what was left out, and conversations token by token.

data.html                 the page; the index where there are no results
data/datasets.js          the table and the statistics, as a call that registers them
data/shown/<dataset>.js   a few conversations of one dataset, loaded when it is opened

"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tulu_pipeline.errors import Tampered
from tulu_pipeline.reporting.data_figure import cut_position
from tulu_pipeline.reporting.data_table import COLUMNS, DataLine, DataTable, by_count, compare, data_legend
from tulu_pipeline.reporting.data_text import compared_text, share
from tulu_pipeline.reporting.pages import DATA, INDEX, copy_viewer, script, slug
from tulu_pipeline.reporting.records import sha256_file
from tulu_pipeline.tokens.statistics import FILE, LENGTH_BINS

SHOWN = "shown.json"


def write_data_page(table: DataTable, folders: Mapping[str, Path | None], folder: Path, *, results: bool) -> None:
    """Writes the page into the report's folder; one dataset's conversations are in memory at a time.

    Args:
        table: the data.
        folders: dataset to the folder of its describe artifact, None where there is none.
        folder: of the report.
        results: the report has a table of results too, whose page stays the index.

    Raises:
        Tampered: the conversations of a dataset cannot be read.
    """
    copy_viewer(folder, results=results, data=True)
    (folder / DATA / "shown").mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    provenance: dict[str, dict[str, str]] = {}
    for line in table.lines:
        name = line.spec.name
        described = folders.get(name)
        if described is None or line.statistics is None:
            continue
        files[name] = f"shown/{slug(name, taken=[file.removeprefix('shown/') for file in files.values()])}"
        provenance[name] = {file: sha256_file(described / file) for file in (FILE, SHOWN)}
        text = script("shown", name, _shown(described / SHOWN))
        (folder / DATA / f"{files[name]}.js").write_text(text, encoding="ascii")
    document = {
        "title": table.title,
        "tokenizer": table.tokenizer,
        "headings": [column.heading for column in COLUMNS],
        "bins": LENGTH_BINS,
        "lines": [_line(table, line) for line in table.lines],
        "notes": data_legend(table),
        "files": files,
        "provenance": provenance,
        "results_page": INDEX if results else "",
    }
    (folder / DATA / "datasets.js").write_text(script("datasets", document), encoding="ascii")


def _line(table: DataTable, line: DataLine) -> dict[str, Any]:
    found = line.statistics
    shown: dict[str, Any] = {
        "name": line.spec.name,
        "title": line.spec.label,
        "license": line.spec.license,
        "sample": line.spec.sample,
        "cells": [
            dict(zip(("ours", "paper", "difference"), compared_text(compare(table, line, column), column), strict=True))
            for column in COLUMNS
        ],
    }
    if found is None:
        return shown
    return shown | {
        "statistics": asdict(found)
        | {
            "cut": cut_position(found.max_length_tokens),
            "supervised_share": share(found.supervised_tokens, found.tokens),
            "truncated_share": share(found.truncated, found.instances),
            # In the order in which they are shown.
            **{name: by_count(getattr(found, name)) for name in ("dropped", "changed", "licenses", "languages")},
        }
    }


def _shown(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Tampered(
            f"conversations cannot be read: {error}", str(path), "`tulu verify` names what is damaged"
        ) from error
