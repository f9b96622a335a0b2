"""`tulu list`: what there is, by name."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.commands.options import AsJson
from flows.terminal import print_json, print_rows

Kind = Annotated[str, Parameter(help="datasets, mixtures, models, benchmarks, experiments or stages.")]


def list(kind: Kind, *, as_json: AsJson = False) -> None:  # noqa: A001 - the command is called so
    from flows.catalog_view import list_kind

    rows = list_kind(kind)
    if as_json:
        print_json([{"name": name, "title": title, "more": more} for name, title, more in rows])
    else:
        print_rows(rows)
