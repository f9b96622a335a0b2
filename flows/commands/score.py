"""`tulu score`: completions of one's own, scored."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import above, open_console, print_json, print_result

Completions = Annotated[Path, Parameter(help='JSON lines of {"item_id": …, "completion": …}.')]
Asked = Annotated[
    str, Parameter(help="what was asked: a metric such as gsm_cot; `tulu show gsm --json` has its items.")
]
MissingAreEmpty = Annotated[bool, Parameter(help="count an item without a completion as an empty one.")]
CountsBy = Annotated[str, Parameter(help="what a judge that counts tokens counts by: a name, a model's, or a folder.")]

JudgedBy = Annotated[
    str | None, Parameter(help="model that judges in place of the benchmark's own, as its provider calls it.")
]


def score(
    file: Completions,
    *,
    benchmark: Asked,
    missing_are_empty: MissingAreEmpty = False,
    tokenizer: CountsBy = "llama",
    judge: JudgedBy = None,
    max_usd: options.MaxUsd = None,
    store: options.Store = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.progress import Bars
    from flows.score import score_session, stored_scores, with_ways_out
    from flows.session import run_in_threads

    with Bars(open_console(stderr=True)) as bars, above(bars.console):
        session = score_session(
            file,
            benchmark,
            missing_are_empty=missing_are_empty,
            tokenizer=tokenizer,
            judge=judge,
            max_usd=max_usd,
            store=store,
            progress=bars,
        )
        session.ctx = dataclasses.replace(session.ctx, progress=bars)
        result = run_in_threads(session)
    result.failed = with_ways_out(session, result.failed)
    scores = stored_scores(session)
    if as_json:
        print_json(result.to_json() | {"scores": scores})
    else:
        print_result(session, result)
        for score in scores:
            print(f"scores: {score['folder']}")
    if result.failed:
        sys.exit(1)
