"""`tulu path`: where an artifact lies."""

from __future__ import annotations

from flows.commands import options
from tulu_pipeline.errors import TuluError


def path(artifact: options.Artifacts, *, experiment: options.GraphOf = "demo", store: options.Store = None) -> None:
    from flows.session import Request, prepare, selected_names

    session = prepare(Request(experiment=experiment, store=store))
    for name in selected_names(session, artifact):
        node = session.plan.nodes[name]
        if node.manifest is None or node.digest is None:
            raise TuluError(f"{name} is not there", session.store.url, f"`tulu run {experiment}` makes it")
        print(session.store.path(node.manifest))
