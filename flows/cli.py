"""The `tulu` command: parse, call, render; nothing else. stdout is data, stderr is logs and progress."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Parameter

from flows.terminal import above, open_console, print_error, print_json, print_result, print_rows, show_logs
from tulu_pipeline.artifacts.interrupts import listen
from tulu_pipeline.errors import BadInput, TuluError

if TYPE_CHECKING:
    from flows.session import Session
    from tulu_pipeline.artifacts.run import RunResult

app = App(
    name="tulu",
    help="Which instruction data helps which skill, on which base model? Only what changed reruns.",
    help_epilogue="Exit codes: 0 done, 1 failed, 2 usage, 4 something missing on this machine.",
    version_flags=[],
    suppress_keyboard_interrupt=False,  # `main` says what became of the run
    default_parameter=Parameter(negative="", show_default=False),
)

AsJson = Annotated[bool, Parameter(name="--json")]


@app.command(name="list")
def list_(kind: str, *, as_json: AsJson = False) -> None:
    """List what there is, by name.

    Args:
        kind: datasets, mixtures, models, benchmarks, experiments or stages.
        as_json: print JSON for scripts.
    """
    from flows.catalog_view import list_kind

    rows = list_kind(kind)
    if as_json:
        print_json([{"name": name, "title": title, "more": more} for name, title, more in rows])
    else:
        print_rows(rows)


@app.command
def show(name: str, *, store: str | None = None, as_json: AsJson = False) -> None:
    """Show what a name stands for: sources, license, citation, settings; of data also counts and licenses.

    Args:
        name: a dataset, mixture, model, benchmark or experiment.
        store: artifact store with the counts; else TULU_STORE, else ./store.
        as_json: print JSON for scripts.
    """
    from flows.catalog_view import print_show, show_json
    from tulu_pipeline.artifacts.store import Store
    from tulu_pipeline.settings import read_settings

    facts = show_json(name, Store(read_settings(store).store))
    if as_json:
        print_json(facts)
    else:
        print_show(facts, open_console())


@app.command
def export(
    mixture: str,
    *,
    out: Path | None = None,
    tokenizer: str = "llama",
    profile: str | None = None,
    store: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Write a mixture as Parquet that `datasets` opens; what is missing of it is made.

    Args:
        mixture: a mixture, a dataset, or path/to/file.py:CONSTANT.
        out: folder; else exports/MIXTURE.
        tokenizer: what long chats are split by: its name, a model's, or a folder.
        profile: execution profile: a name of deployments/profiles, or a TOML file.
        store: artifact store; else TULU_STORE, else ./store.
        as_json: print JSON for scripts.
    """
    from flows.export import export as write
    from flows.progress import Bars
    from flows.terminal import print_licenses

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


@app.command
def plan(
    experiment: str,
    *,
    until: str | None = None,
    only: str | None = None,
    refresh: tuple[str, ...] = (),
    store: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Say what would run and why; runs nothing.

    Args:
        experiment: name, or path/to/file.py:CONSTANT.
        until: last stage to make, such as tokenize.
        only: make only this selection and what it needs.
        refresh: make this selection anew though it is there.
        store: artifact store; else TULU_STORE, else ./store.
        as_json: print JSON for scripts.
    """
    from flows.plan_view import plan_json, print_plan
    from flows.session import Request, prepare

    session = prepare(Request(experiment=experiment, until=until, only=only, refresh=refresh, store=store))
    if as_json:
        print_json(plan_json(session))
    else:
        print_plan(session, open_console())


@app.command
def run(
    experiment: str,
    *,
    until: str | None = None,
    only: str | None = None,
    refresh: tuple[str, ...] = (),
    profile: str | None = None,
    strict_rows: bool = False,
    update_sources: bool = False,
    runner: str = "prefect",
    store: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Make what is missing or stale, and print the table.

    Args:
        experiment: name, or path/to/file.py:CONSTANT.
        until: last stage to make, such as tokenize.
        only: make only this selection and what it needs.
        refresh: make this selection anew though it is there.
        profile: execution profile: a name of deployments/profiles, or a TOML file.
        strict_rows: fail on malformed rows instead of dropping them.
        update_sources: resolve moving sources anew.
        runner: prefect or local.
        store: artifact store; else TULU_STORE, else ./store.
        as_json: print JSON for scripts.
    """
    from flows.session import Request, prepare
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
    )
    session = prepare(request)
    if session.plan.count()[Status.HIT] == len(session.plan.nodes):
        result = _nothing_to_do(session)
    else:
        result = _carry_out(session, runner)
        session = prepare(dataclasses.replace(request, refresh=(), update_sources=False))
    if as_json:
        print_json(result.to_json())
    else:
        print_result(session, result)
    if result.failed:
        sys.exit(1)


@app.command
def tokens(
    dataset: str,
    *,
    row: str = "0",
    tokenizer: Annotated[str | None, Parameter(name=("--tokenizer", "--model"))] = None,
    experiment: str | None = None,
    max_length: int | None = None,
    store: str | None = None,
    profile: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Show one conversation of a dataset token by token: which text each id stands for, and what is learned.

    Args:
        dataset: its name, with its variant, or path/to/file.py:CONSTANT.
        row: place among the kept conversations, from 0, or an id.
        tokenizer: a tokenizer's name, a model's, or a folder; else the experiment's, else tiny-10m's.
        experiment: whose recipe, tokenizer and own datasets count; else the paper's recipe.
        max_length: cut to so many tokens instead of where the recipe says.
        store: artifact store; else TULU_STORE, else ./store.
        profile: execution profile.
        as_json: print JSON for scripts.
    """
    from flows.progress import Bars
    from flows.tokens import show_tokens
    from flows.tokens_view import print_tokens, tokens_json

    with Bars(open_console(stderr=True)) as bars, above(bars.console):
        shown = show_tokens(
            dataset,
            row=row,
            tokenizer=tokenizer,
            experiment=experiment,
            max_length_tokens=max_length,
            store=store,
            profile=profile,
            progress=bars,
        )
    if as_json:
        print_json(tokens_json(shown))
    else:
        print_tokens(shown, open_console())


@app.command
def why(artifact: str, *, experiment: str = "demo", refresh: tuple[str, ...] = (), store: str | None = None) -> None:
    """Say what differs from the last build, down to the root cause.

    Args:
        artifact: such as finetune[tiny+arithmetic]; * and ? match.
        experiment: whose graph.
        refresh: as if run with this.
        store: artifact store; else TULU_STORE, else ./store.
    """
    from flows.session import Request, prepare
    from tulu_pipeline.artifacts.explain import Explainer

    session = prepare(Request(experiment=experiment, refresh=refresh, store=store))
    explainer = Explainer(session.plan, session.store, session.experiment.name)
    for name in _names(session, artifact):
        print(f"{name} {session.plan.nodes[name].status}")
        for reason in explainer.reasons(name):
            print("\n".join(reason.lines(1)))


@app.command
def path(artifact: str, *, experiment: str = "demo", store: str | None = None) -> None:
    """Print the folder of an artifact.

    Args:
        artifact: such as finetune[tiny+arithmetic]; * and ? match.
        experiment: whose graph.
        store: artifact store; else TULU_STORE, else ./store.
    """
    from flows.session import Request, prepare

    session = prepare(Request(experiment=experiment, store=store))
    for name in _names(session, artifact):
        node = session.plan.nodes[name]
        if node.manifest is None or node.digest is None:
            raise TuluError(f"{name} is not there", session.store.url, f"`tulu run {experiment}` makes it")
        print(session.store.path(node.manifest))


@app.command
def verify(*, store: str | None = None, as_json: AsJson = False) -> None:
    """Hash every artifact of the store again and name those that changed.

    Args:
        store: artifact store; else TULU_STORE, else ./store.
        as_json: print JSON for scripts.
    """
    from tulu_pipeline.artifacts.store import Store
    from tulu_pipeline.errors import StoreError, Tampered
    from tulu_pipeline.settings import read_settings

    opened = Store(read_settings(store).store)
    bad: list[dict[str, str]] = []
    good = 0

    def found(error: StoreError, name: str = "a manifest") -> None:
        bad.append({"name": name, "what": error.what, "where": error.where, "fix": error.fix})

    for manifest in opened.manifests(on_error=found):
        try:
            opened.verify(manifest)
            good += 1
        except Tampered as error:
            found(error, manifest.name)
    if as_json:
        print_json({"good": good, "bad": bad})
    else:
        for entry in bad:
            print_error(TuluError(f"{entry['name']}: {entry['what']}", entry["where"], entry["fix"]))
        print(f"{good} artifacts are as published, {len(bad)} are not")
    if bad:
        sys.exit(1)


@app.command
def versions(*, accept: bool = False) -> None:
    """Compare the code with the versions it claims; exit 1 on drift.

    Args:
        accept: write the lock: the code gives the same bytes, or its version was bumped.
    """
    from flows.graph import every_artifact, versions_lock

    lock, artifacts = versions_lock(), every_artifact()
    if accept:
        lock.accept(artifacts)
        print(f"{len(lock.units)} entries in {lock.path}")
        return
    drifts = sorted({drift for artifact in artifacts if (drift := lock.drift(artifact))})
    if drifts:
        print("\n".join(drifts))
        raise TuluError(
            f"{len(drifts)} pieces of code changed and their versions did not",
            str(lock.path),
            "bump the version if bytes change, then `tulu versions --accept`",
        )


def main() -> None:
    """Run the command; errors print what, where and fix, and set the exit code."""
    words = sys.argv[1:]
    debug = "--debug" in words
    show_logs(debug=debug)
    listen()
    try:
        app([word for word in words if word != "--debug"], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print_error(
            BadInput(_first_line(error), f"tulu {' '.join(words)}", "see `tulu --help`, or `tulu COMMAND --help`")
        )
        sys.exit(BadInput.exit_code)
    except TuluError as error:
        if debug:
            raise
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `tulu plan … | head`
        sys.stderr.close()


def _carry_out(session: Session, runner: str) -> RunResult:
    """Run with progress on stderr, through Prefect or in local threads."""
    from flows.progress import Bars
    from flows.session import run_session
    from tulu_pipeline.artifacts.run import local_threads

    with Bars(open_console(stderr=True)) as bars, above(bars.console):
        if runner == "local":
            session.ctx = dataclasses.replace(session.ctx, progress=bars)
            with local_threads() as submit:
                return run_session(session, submit)
        from flows.reproduce import run_with_prefect

        # What moves was resolved for this plan; resolved again it might be something else.
        return run_with_prefect(dataclasses.replace(session.request, update_sources=False), bars)


def _nothing_to_do(session: Session) -> RunResult:
    """The run's own loop with nothing to submit: no bars, no Prefect."""
    from flows.session import run_session
    from tulu_pipeline.artifacts.run import local_threads

    with local_threads() as submit:
        return run_session(session, submit)


def _names(session: Session, artifact: str) -> list[str]:
    from flows.select import select
    from tulu_pipeline.errors import NotFound

    try:
        return [found.name for found in select(session.graph, artifact)]
    except NotFound as error:
        where = f"experiment `{session.experiment.name}`; --experiment names another"
        raise NotFound(error.what, where, error.fix) from error


def _first_line(error: CycloptsError) -> str:
    return str(error).strip().splitlines()[0]
