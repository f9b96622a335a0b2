"""`tulu show`: what a name stands for."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import open_console, print_json

Name = Annotated[
    str | None, Parameter(help="a dataset, mixture, model, benchmark, metric or experiment; without it, their names.")
]
CountsIn = Annotated[str | None, Parameter(help="artifact store with the counts; else TULU_STORE, else ./store.")]


def show(name: Name = None, /, *, store: CountsIn = None, as_json: options.AsJson = False) -> None:
    from flows.catalog_view import print_names, print_show, show_json, show_names
    from tulu_pipeline.artifacts.store import Store
    from tulu_pipeline.settings import read_settings

    if name is None:
        names = show_names()
        if as_json:
            print_json(names)
        else:
            print_names(names, open_console())
        return
    facts = show_json(name, Store(read_settings(store).store))
    if as_json:
        print_json(facts)
    else:
        print_show(facts, name, open_console())
