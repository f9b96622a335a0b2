"""The page of the length analysis: the figure, the models and the correlations; no script, it is read as it stands.

length.html     the page
length.png      its figure
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from tulu_pipeline.reporting.length_figure import write_length_figure
from tulu_pipeline.reporting.length_text import (
    CORRELATION_HEADINGS,
    MODEL_HEADINGS,
    correlation_lines,
    length_notes,
    model_lines,
)
from tulu_pipeline.reporting.lengths import LengthAnalysis
from tulu_pipeline.reporting.pages import INDEX, LENGTH_PAGE

_FIGURE = "length.png"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'self' file:; img-src 'self' file: data:; base-uri 'none'; form-action 'none'">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="report.css">
<title>{title}</title>
</head>
<body>
<main id="overview" class="data">
<header class="masthead"><h1>Length and preference</h1><div class="tools"><a class="tab" href="{index}">← {title}</a></div></header>
<p><img class="picture" src="{figure}" width="720" alt="{alternative}"></p>
<h2>Models</h2>
{models}
<h2>Correlations over the models</h2>
{correlations}
<h2>Notes</h2>
<ul class="notes">
{notes}
</ul>
</main>
</body>
</html>
"""  # noqa: E501 (a policy is one line)


def write_length_page(title: str, analysis: LengthAnalysis, folder: Path) -> None:
    """Writes the page and its figure into the report's folder.

    Args:
        title: of the report.
        analysis: what is shown.
        folder: of the report.
    """
    write_length_figure(analysis, folder / _FIGURE)
    page = _PAGE.format(
        title=escape(title),
        index=INDEX,
        figure=_FIGURE,
        alternative="Win rate against mean unique tokens, and by unique tokens against win rate; the numbers are below",
        models=_grid(MODEL_HEADINGS, model_lines(analysis)),
        correlations=_grid(CORRELATION_HEADINGS, correlation_lines(analysis)),
        notes="\n".join(f"<li>{escape(note)}</li>" for note in length_notes(analysis)),
    )
    (folder / LENGTH_PAGE).write_text(page, encoding="utf-8")


def _grid(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in lines
    )
    table = f'<table class="counts length">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'
    return f'<div class="scroll">{table}</div>'
