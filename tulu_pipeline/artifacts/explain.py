"""Why an artifact is stale: what differs from its last build, field by field, down to the root cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.plan import Node, Plan, Status
from tulu_pipeline.artifacts.store import Store


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
            yield Reason("NEW", "never made in this store under this name")
            return
        found = False
        if node.status is Status.MISS:
            for reason in self._differences(node, last):
                found = True
                yield reason
        else:
            for waited in node.waits_for:
                found = True
                yield self._waits(waited)
        if not found:
            yield Reason("NEW", "its earlier build is not in this store any more")

    def _waits(self, name: str) -> Reason:
        if name not in self._plan.nodes:
            return Reason("SOURCE", f"{name.removeprefix('source ')} was never resolved: run with --update-sources")
        return Reason("INPUT", f"{name} is stale", self.reasons(name))

    def _differences(self, node: Node, last: Manifest) -> Iterator[Reason]:
        new, old = node.identity, last.identity
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
        for name, before, after in _changes(old["inputs"], new["inputs"]):
            source = node.artifact.inputs.get(name)
            called = source.name if source is not None else name
            yield Reason("INPUT", f"{called} {_short(before)} → {_short(after)}")
        if old.get("attempt") != new.get("attempt"):
            yield Reason("FORCED", f"attempt {old.get('attempt', 0)} → {new.get('attempt', 0)}")


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, _text(old, name), _text(new, name)


def _text(values: dict[str, Any], name: str) -> str:
    return "absent" if name not in values else str(values[name])


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
