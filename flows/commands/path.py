"""`tulu path`: where an artifact lies."""

from __future__ import annotations

from flows.commands import options


def path(artifact: options.Artifacts, *, experiment: options.GraphOf = "demo", store: options.Store = None) -> None:
    from flows.session import Request, prepare, selected_names

    session = prepare(Request(experiment=experiment, store=store))
    for name in selected_names(session, artifact):
        print(session.folder(name))
