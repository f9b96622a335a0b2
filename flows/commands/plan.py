"""`tulu plan`: what would run, and why."""

from __future__ import annotations

from flows.commands import options
from flows.terminal import open_console, print_json


def plan(
    experiment: options.Experiment,
    *,
    until: options.Until = None,
    only: options.Only = None,
    refresh: options.Refresh = (),
    store: options.Store = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.plan_view import plan_json, print_plan
    from flows.session import Request, prepare

    session = prepare(Request(experiment=experiment, until=until, only=only, refresh=refresh, store=store))
    if as_json:
        print_json(plan_json(session))
    else:
        print_plan(session, open_console())
