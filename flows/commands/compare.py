"""`tulu compare`: two models, item by item."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import open_console, print_json

Model = Annotated[str, Parameter(help="a row of the experiment, its artifacts (score[tiny/*]), or a score's folder.")]
Whose = Annotated[str | None, Parameter(help="whose rows; not needed for two folders.")]
Metrics = Annotated[tuple[str, ...], Parameter(help="only this metric; may be given several times.")]
Scorer = Annotated[str, Parameter(help="which scorer compares, such as strict; else each metric's headline.")]


def compare(
    a: Model,
    b: Model,
    *,
    experiment: Whose = None,
    metric: Metrics = (),
    scorer: Scorer = "",
    store: options.Store = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.compare import compare_rows

    found = compare_rows(a, b, experiment=experiment, metrics=metric, scorer=scorer, store=store)
    if as_json:
        from tulu_pipeline.reporting.comparison import to_json

        print_json(to_json(found))
    else:
        from flows.compare_view import print_comparison

        print_comparison(found, open_console(), scorer)
