"""`tulu run`: make what is missing or stale."""

from __future__ import annotations

import dataclasses
import logging
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import above, open_console, print_json, print_result
from tulu_pipeline.errors import BadInput

if TYPE_CHECKING:
    from flows.session import Session
    from tulu_pipeline.artifacts.run import RunResult

log = logging.getLogger(__name__)

StrictRows = Annotated[bool, Parameter(help="fail on malformed rows instead of dropping them.")]
UnsafeCode = Annotated[bool, Parameter(help="execute programs that a model wrote even where they cannot be isolated.")]
UpdateSources = Annotated[bool, Parameter(help="resolve moving sources anew.")]
DryRun = Annotated[bool, Parameter(help="run nothing: what finetunings take, what paid servers cost.")]
Runner = Annotated[str, Parameter(help="prefect or local.")]


def run(
    experiment: options.Experiment,
    *,
    until: options.Until = None,
    only: options.Only = None,
    refresh: options.Refresh = (),
    profile: options.Profile = None,
    strict_rows: StrictRows = False,
    update_sources: UpdateSources = False,
    unsafe_code: UnsafeCode = False,
    max_usd: options.MaxUsd = None,
    dry_run: DryRun = False,
    runner: Runner = "prefect",
    store: options.Store = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.providers import lacking_providers
    from flows.session import Request, prepare, run_in_threads
    from tulu_pipeline.artifacts.plan import Status

    if runner not in {"prefect", "local"}:
        raise BadInput(f"no runner `{runner}`", "--runner", "write `prefect` or `local`")
    request = Request(
        experiment=experiment,
        until=until,
        only=only,
        refresh=refresh,
        store=store,
        profile=profile,
        strict_rows=strict_rows,
        update_sources=update_sources,
        unsafe_code=unsafe_code,
        max_usd=max_usd,
    )
    session = prepare(request)
    if dry_run:
        _tell(session, as_json=as_json)
        return
    if session.plan.count()[Status.HIT] == len(session.plan.nodes):
        result = run_in_threads(session)  # nothing to submit: no bars, no Prefect
    else:
        for line in lacking_providers(session.plan):
            log.warning("%s", line)
        result = _carry_out(session, runner)
        session = prepare(dataclasses.replace(request, refresh=(), update_sources=False))
    if as_json:
        print_json(result.to_json())
    else:
        print_result(session, result)
    if result.failed:
        sys.exit(1)


def _tell(session: Session, *, as_json: bool) -> None:
    """What the finetunings would take, and what paid servers would cost; exit 2 where a finetuning would be refused."""
    from flows.costs import cost_lines, costs_json
    from flows.dry_run import dry_run, dry_run_json
    from flows.dry_run_view import print_dry_run

    told = dry_run(session)
    if as_json:
        print_json(dry_run_json(told) | {"costs": costs_json(session)})
    else:
        print_dry_run(told, open_console())
        print("".join(f"{line}\n" for line in cost_lines(session)), end="")
    if told.errors:
        sys.exit(BadInput.exit_code)


def _carry_out(session: Session, runner: str) -> RunResult:
    """Run with progress on stderr, through Prefect or in local threads."""
    from flows.progress import Bars
    from flows.session import run_in_threads

    with Bars(open_console(stderr=True)) as bars, above(bars.console):
        if runner == "local":
            session.ctx = dataclasses.replace(session.ctx, progress=bars)
            return run_in_threads(session)
        from flows.reproduce import run_with_prefect

        # What moves was resolved for this plan; resolved again it might be something else.
        return run_with_prefect(dataclasses.replace(session.request, update_sources=False), bars)
