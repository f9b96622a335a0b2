"""`tulu export`: a mixture as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import above, open_console, print_json, print_licenses

Mixture = Annotated[str, Parameter(help="a mixture, a dataset, or path/to/file.py:CONSTANT.")]
Out = Annotated[Path | None, Parameter(help="folder; else exports/MIXTURE.")]
Tokenizer = Annotated[str, Parameter(help="what long chats are split by: its name, a model's, or a folder.")]


def export(
    mixture: Mixture,
    *,
    out: Out = None,
    tokenizer: Tokenizer = "llama",
    profile: options.Profile = None,
    store: options.Store = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.export import export as write
    from flows.progress import Bars

    with Bars(open_console(stderr=True)) as bars, above(bars.console):
        done = write(
            mixture,
            out=out,
            tokenizer=tokenizer,
            store=store,
            profile=profile,
            progress=bars,
            on_licenses=lambda licenses: print_licenses(licenses, bars.console),
        )
    if as_json:
        print_json({"folder": str(done.folder), "rows": done.rows, "licenses": done.licenses, "made": done.made})
    else:
        print(f"{mixture}: {done.rows:,} conversations in {done.folder}")
