"""`tulu why`: what differs from the last build."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.commands import options

Refresh = Annotated[tuple[str, ...], Parameter(help="as if run with this.")]


def why(
    artifact: options.Artifacts,
    *,
    experiment: options.GraphOf = "demo",
    refresh: Refresh = (),
    store: options.Store = None,
) -> None:
    from flows.session import Request, prepare, selected_names
    from tulu_pipeline.artifacts.explain import Explainer

    session = prepare(Request(experiment=experiment, refresh=refresh, store=store))
    explainer = Explainer(session.plan, session.store, session.experiment.name)
    for name in selected_names(session, artifact):
        print(f"{name} {session.plan.nodes[name].status}")
        for reason in explainer.reasons(name):
            print("\n".join(reason.lines(1)))
