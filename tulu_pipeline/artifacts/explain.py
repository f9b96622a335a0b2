"""Why an artifact is stale: what differs from its last build, field by field, down to the root cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.plan import Node, Plan, Status, identity
from tulu_pipeline.artifacts.store import Store

_GONE = "its earlier build is not in this store any more"


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause.

    Attributes:
        code: NEW, VERSION, PARAM, INPUT, SOURCE, ENV, CODE, MISSING, FORCED, or HIT.
        text: for people: `lr 2e-05 → 1e-05`.
        because: for an input: the reasons of the artifact that made it.
    """

    code: str
    text: str
    because: tuple[Reason, ...] = ()

    def lines(self, indent: int = 0) -> Iterator[str]:
        """The cause and those below it, one a line."""
        yield f"{'  ' * indent}{self.code} {self.text}".rstrip()
        for reason in self.because:
            yield from reason.lines(indent + 1)


class Explainer:
    """Reasons for the nodes of one plan.

    Args:
        plan: the plan.
        store: where earlier builds are looked up.
        experiment: under whose readable names they were made.
    """

    def __init__(self, plan: Plan, store: Store, experiment: str) -> None:
        self._plan, self._store, self._experiment = plan, store, experiment
        self._known: dict[str, tuple[Reason, ...]] = {}

    def reasons(self, name: str) -> tuple[Reason, ...]:
        """Why `name` is stale; a single HIT reason when it is not."""
        if name not in self._known:
            self._known[name] = tuple(self._explain(self._plan.nodes[name]))
        return self._known[name]

    def _explain(self, node: Node) -> Iterator[Reason]:
        name = node.artifact.name
        if node.status is Status.HIT:
            yield Reason("HIT", "published under its key")
            return
        if node.forced:
            yield Reason("FORCED", f"asked for anew, attempt {node.attempt}" if node.attempt else "asked for anew")
            return
        if node.status is Status.MISS and node.manifest is not None:
            yield Reason("MISSING", f"its payload {node.manifest.payload} is gone")
            return
        last = self._store.ref(self._experiment, name)
        if last is None:
            yield from self._unknown(node)
            return
        found = False
        for reason in self._reasons_since(last, node):
            found = True
            yield reason
        if not found:
            yield Reason("NEW", _GONE)

    def _unknown(self, node: Node) -> Iterator[Reason]:
        if node.unresolved:
            yield from map(_unresolved, node.unresolved)
        elif self._store.ref_payload(self._experiment, node.artifact.name):
            yield Reason("NEW", _GONE)
        else:
            yield Reason("NEW", "never made in this store under this name")
        for below in self._stale_inputs(node):
            if any(reason.code != "NEW" for reason in below.because):  # that all below is new goes without saying
                yield below

    def _reasons_since(self, last: Manifest, node: Node) -> Iterator[Reason]:
        if node.status is Status.MISS:
            yield from self._differences(node.identity, last, node.artifact)
            return
        own = identity(node.artifact, {}, {})
        yield from _own_changes(last.identity | {"sources": {}}, own)
        yield from map(_unresolved, node.unresolved)
        yield from self._stale_inputs(node)

    def _stale_inputs(self, node: Node) -> Iterator[Reason]:
        for waited in node.waits_for:
            if waited in self._plan.nodes:
                yield Reason("INPUT", f"{waited} is stale", self.reasons(waited))

    def _differences(self, new: dict[str, Any], last: Manifest, artifact: Artifact) -> Iterator[Reason]:
        yield from _own_changes(last.identity, new)
        for name, before, after in _changes(last.identity["inputs"], new["inputs"]):
            source = artifact.inputs.get(name)
            called = source.name if source is not None else name
            because = self._since_then(source, last.inputs.get(name)) if source is not None else ()
            yield Reason("INPUT", f"{called} {_short(before)} → {_short(after)}", because)

    def _since_then(self, source: Artifact, key: str | None) -> tuple[Reason, ...]:
        """What changed in an input that is there now since the build of it that was read last time."""
        now = self._plan.nodes[source.name].manifest
        then = self._store.manifest(source.stage.name, key) if key is not None else None
        if now is None or then is None:
            return ()
        return tuple(self._differences(now.identity, then, source))


def _unresolved(source: str) -> Reason:
    return Reason("SOURCE", f"{source} was never resolved: run with --update-sources")


def _own_changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Reason]:
    """What differs in an artifact itself: everything of its identity but its inputs."""
    if new["schema"] != old["schema"]:
        yield Reason("VERSION", f"keys {old['schema']} → {new['schema']}")
    if new["stage_version"] != old["stage_version"]:
        yield Reason("VERSION", f"stage {new['stage']} {old['stage_version']} → {new['stage_version']}")
    for name, before, after in _changes(old["objects"], new["objects"]):
        yield Reason("VERSION", f"{name} {before} → {after}")
    for name, before, after in _changes(old.get("code", {}), new.get("code", {})):
        yield Reason("CODE", f"{name} {before[:8]} → {after[:8]}")
    for name, before, after in _changes(_flat(old["params"]), _flat(new["params"])):
        yield Reason("PARAM", f"{name} {before} → {after}")
    for name, before, after in _changes(_flat(old["sources"]), _flat(new["sources"])):
        yield Reason("SOURCE", f"{name} {_short(before)} → {_short(after)}")
    for name, before, after in _changes(old["env"], new["env"]):
        yield Reason("ENV", f"{name} {before} → {after}")
    if new.get("attempt") != old.get("attempt"):
        yield Reason("FORCED", f"attempt {old.get('attempt', 0)} → {new.get('attempt', 0)}")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, _text(old, name), _text(new, name)


def _text(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    return "missing" if values[name] is None else str(values[name])


def _short(text: str) -> str:
    return text[:12] if len(text) == 64 else text


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {
            k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}" if prefix else name).items()
        }
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return {k: v for index, item in enumerate(value) for k, v in _flat(item, f"{prefix}[{index}]").items()}
    return {prefix: json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value}
