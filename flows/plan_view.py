"""A plan for people and for scripts, and the tables at the end of a run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flows.costs import cost_lines, costs_json
from flows.providers import lacking_providers
from flows.session import Session
from tasks import STAGES
from tulu_pipeline.artifacts.explain import Explainer
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.plan import Node, Status
from tulu_pipeline.artifacts.versions import VersionsLock

_TABLES = ("table.json", "data_table.json")
_STYLES = {Status.HIT: "green", Status.MISS: "yellow", Status.WAITS: "dim"}


def plan_json(session: Session) -> dict[str, Any]:
    """The form that scripts rely on: counts, and per node status, key, reason and inputs."""
    explainer = Explainer(session.plan, session.store, session.experiment.name)
    lock = _lock()
    nodes = []
    for name, node in session.plan.nodes.items():
        reason = explainer.reasons(name)[0]
        nodes.append(
            {
                "name": name,
                "stage": node.artifact.stage.name,
                "status": node.status.value,
                "key": node.key,
                "drift": lock.drift(node.artifact) or None,
                "reason": {"code": reason.code, "text": reason.text},
                "inputs": [source.name for source in node.artifact.inputs.values()],
            }
        )
    counts = {status.value: count for status, count in session.plan.count().items()}
    costs = costs_json(session)
    return {"experiment": session.experiment.name, "counts": counts, "costs": costs, "nodes": nodes}


def print_plan(session: Session, console: Any) -> None:
    """Stages with their counts, then each stale artifact with its reason and what it took last time."""
    from rich.table import Table

    stages: dict[str, dict[Status, int]] = {}
    for node in sorted(session.plan.nodes.values(), key=_stage_order):
        stages.setdefault(node.artifact.stage.name, dict.fromkeys(Status, 0))[node.status] += 1
    summary = Table(*["stage", *(status.value for status in Status)], box=None, pad_edge=False)
    for stage, counts in stages.items():
        cells = [f"[{_STYLES[status]}]{count or '·'}[/]" for status, count in counts.items()]
        summary.add_row(stage, *cells)
    console.print(summary)
    stale = [node for node in session.plan.nodes.values() if node.status is not Status.HIT]
    if stale:
        console.print()
        console.print(_stale_table(session, stale))
    console.print()
    console.print(_closing(session, stale), highlight=False)
    for line in cost_lines(session):
        console.print(line, markup=False, highlight=False)
    for line in lacking_providers(session.plan):
        console.print(line, style="yellow", markup=False, highlight=False)
    lock = _lock()
    drifts = sorted({drift for node in session.plan.nodes.values() if (drift := lock.drift(node.artifact))})
    if drifts:
        more = f" and {len(drifts) - 1} more" if len(drifts) > 1 else ""
        console.print(f"drift: {drifts[0]}{more}; see `tulu versions`", style="yellow", markup=False)


def print_tables(session: Session, console: Any, not_made: Collection[str] = ()) -> None:
    """The table of each `tabulate` artifact that is there, and where its report lies.

    Of an experiment without models that is the table of the data; of another one, where the page of the data lies.
    Where something failed, the table was made without it: a plan waits for what failed, so the table is found by its
    name, unless it is among `not_made`.
    """
    from tulu_pipeline.reporting.data_table import read_data_table
    from tulu_pipeline.reporting.table import read_table
    from tulu_pipeline.reporting.terminal import render_data_table, render_table

    for node in session.plan.nodes.values():
        name = node.artifact.name
        if node.artifact.stage.name != "tabulate" or name in not_made:
            continue
        manifest = node.manifest if node.digest is not None else session.store.ref(session.experiment.name, name)
        if manifest is None:
            continue
        folder = session.store.path(manifest)
        results, data = (any(file.path == table for file in manifest.outputs) for table in _TABLES)
        if results:
            console.print(render_table(read_table(folder / "table.json")))
        elif data:
            console.print(render_data_table(read_data_table(folder / "data_table.json")))
        pages = {"report": "index.html"} | ({"data": "data.html"} if results and data else {})
        for what, page in pages.items():
            console.print(f"{what}: {folder / 'report' / page}", soft_wrap=True, markup=False, highlight=False)


def print_left_out(session: Session, console: Any) -> None:
    """How many rows each dataset lost on its way, and the commonest reason; nothing where none did."""
    for node in session.plan.nodes.values():
        if node.artifact.stage.name != "normalize" or node.digest is None or node.manifest is None:
            continue
        counts = node.manifest.metrics
        if dropped := counts.get("dropped"):
            reason, times = max(counts["dropped_by_reason"].items(), key=lambda each: each[1])
            log = session.store.path(node.manifest) / "aux" / "dropped.jsonl"
            told = f"{node.artifact.cell}: {dropped:,} of {counts['rows']:,} rows left out ({times:,}: {reason}); {log}"
            console.print(told, style="yellow", soft_wrap=True, markup=False, highlight=False)


def _stale_table(session: Session, stale: list[Node]) -> Any:
    from rich.table import Table
    from rich.text import Text

    explainer = Explainer(session.plan, session.store, session.experiment.name)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("artifact", no_wrap=True, overflow="fold")
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("last took", no_wrap=True, justify="right")
    for node in sorted(stale, key=_stage_order):
        reasons = explainer.reasons(node.artifact.name)
        last = session.store.ref(session.experiment.name, node.artifact.name)
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        table.add_row(
            Text(node.status.value, style=_STYLES[node.status]),
            Text(node.artifact.name),
            Text(f"{reasons[0].code} {reasons[0].text}{more}", style="dim"),
            Text(_duration(last.seconds) if last else "?", style="dim"),
        )
    return table


def _stage_order(node: Node) -> int:
    return STAGES.index(node.artifact.stage)


def _closing(session: Session, stale: list[Node]) -> str:
    if not stale:
        return f"{len(session.plan.nodes)} artifacts are there; nothing to do"
    past = [session.store.ref(session.experiment.name, node.artifact.name) for node in stale]
    known = [manifest for manifest in past if manifest is not None]
    estimate = _estimate(known, len(stale))
    return (
        f"{len(stale)} of {len(session.plan.nodes)} artifacts to make, or fewer where bytes stay the same; {estimate}"
    )


def _estimate(known: list[Manifest], wanted: int) -> str:
    if not known:
        return "no past run to estimate from"
    seconds = sum(manifest.seconds for manifest in known)
    cost = sum(float(manifest.cost_usd) for manifest in known)
    rest = "" if len(known) == wanted else f" for {len(known)} of them"
    return f"last time {_duration(seconds)} and ${cost:.2f}{rest}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _lock() -> VersionsLock:
    from flows.graph import versions_lock

    return versions_lock()
