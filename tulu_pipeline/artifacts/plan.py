"""What is there, what is stale, what cannot be known yet. The plan never guesses.

HIT    published under its key
MISS   its key is known and nothing is published there
WAITS  no key yet: something below it is stale
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import metadata
from typing import Any

from tulu_pipeline.artifacts.artifact import Artifact, Graph
from tulu_pipeline.artifacts.canonical import canonical_json, sha256_text, to_plain
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.resolve import Resolver
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.artifacts.versions import fingerprint, is_users

IDENTITY_SCHEMA = 1


class Status(StrEnum):
    HIT = "HIT"
    MISS = "MISS"
    WAITS = "WAITS"


@dataclass(slots=True)
class Node:
    """One artifact in a plan.

    Attributes:
        artifact: the node of the graph.
        status: HIT, MISS or WAITS.
        key: None while it waits.
        identity: what was hashed to the key.
        manifest: of a HIT; of a MISS whose payload is gone.
        forced: asked for anew by --refresh; `attempt` is then the number it will be published under.
        waits_for: inputs without a digest.
    """

    artifact: Artifact
    status: Status = Status.WAITS
    key: str | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None
    forced: bool = False
    base_key: str = ""
    attempt: int = 0
    waits_for: tuple[str, ...] = ()

    @property
    def digest(self) -> str | None:
        """Of the outputs, once they are there."""
        return self.manifest.digest if self.manifest is not None and self.status is Status.HIT else None


class Plan:
    """The status of every artifact of a graph in a store; brought up to date as artifacts are made.

    Args:
        graph: the artifacts.
        store: where they are looked for.
        resolver: descriptors of sources.
        forced: names of artifacts to be made anew though they are there.
    """

    def __init__(self, graph: Graph, store: Store, resolver: Resolver, forced: Collection[str] = ()) -> None:
        self.graph, self._store, self._resolver = graph, store, resolver
        self._attempts = store.attempts()
        self._missing: set[str] = set()
        self.nodes = {artifact.name: Node(artifact, forced=artifact.name in forced) for artifact in graph}
        self.consumers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for artifact in graph:
            for source in dict.fromkeys(artifact.inputs.values()):
                self.consumers[source.name].append(artifact.name)
        for node in self.nodes.values():
            self._settle(node)
        resolver.remember()

    def count(self) -> dict[Status, int]:
        """Nodes by status."""
        counts = dict.fromkeys(Status, 0)
        for node in self.nodes.values():
            counts[node.status] += 1
        return counts

    def made(self, name: str, manifest: Manifest) -> None:
        """`name` is published; those above it get their keys."""
        node = self.nodes[name]
        node.status, node.manifest, node.forced = Status.HIT, manifest, False
        self._settle_above(name)

    def gave_up(self, names: Iterable[str]) -> None:
        """`names` will not be made in this run; a stage that tolerates missing inputs goes on without them."""
        names = list(names)
        self._missing.update(names)
        for name in names:
            self._settle_above(name)

    def above(self, name: str) -> list[str]:
        """Everything that depends on `name`, directly or not."""
        found: dict[str, None] = {}
        stack = [name]
        while stack:
            for consumer in self.consumers[stack.pop()]:
                if consumer not in found:
                    found[consumer] = None
                    stack.append(consumer)
        return list(found)

    def _settle_above(self, name: str) -> None:
        for consumer in self.consumers[name]:
            node = self.nodes[consumer]
            if node.status is Status.WAITS:
                self._settle(node)
                if node.digest is not None:
                    self._settle_above(consumer)

    def _settle(self, node: Node) -> None:
        """Give the node its key and status if all it reads is known."""
        artifact = node.artifact
        inputs: dict[str, str | None] = {}
        waits_for = []
        for name, source in artifact.inputs.items():
            inputs[name] = self.nodes[source.name].digest
            if inputs[name] is None and not (artifact.stage.tolerates_missing and source.name in self._missing):
                waits_for.append(source.name)
        sources = {name: self._resolver.descriptor(source) for name, source in artifact.sources.items()}
        waits_for.extend(f"source {name}" for name, descriptor in sources.items() if descriptor is None)
        node.waits_for = tuple(waits_for)
        if waits_for:
            return
        node.identity = identity(artifact, inputs, sources)
        node.base_key = key_of(node.identity)
        node.attempt = self._attempts.get(node.base_key, 0) + node.forced
        if node.attempt:
            node.identity["attempt"] = node.attempt
        node.key = key_of(node.identity) if node.attempt else node.base_key
        node.manifest = self._store.manifest(artifact.stage.name, node.key)
        there = node.manifest is not None and not node.forced and self._store.has_payload(node.manifest)
        node.status = Status.HIT if there else Status.MISS


def identity(artifact: Artifact, inputs: dict[str, str | None], sources: dict[str, Any]) -> dict[str, Any]:
    """The document whose hash is the artifact's key.

    Args:
        artifact: the node.
        inputs: digest of each input; None for one that is missing for good.
        sources: descriptor of each source.
    """
    document = {
        "schema": IDENTITY_SCHEMA,
        "stage": artifact.stage.name,
        "stage_version": artifact.stage.version,
        "params": to_plain(artifact.params, artifact.name),
        "objects": {ref.name: ref.version for ref in artifact.objects},
        "inputs": inputs,
        "sources": sources,
        "env": {package: installed_version(package) for package in artifact.stage.env},
    }
    code = {ref.name: fingerprint([ref.module]) for ref in artifact.objects if is_users(ref.module)}
    return document | ({"code": code} if code else {})


def key_of(document: dict[str, Any]) -> str:
    """sha256 of the canonical text of an identity document."""
    return sha256_text(canonical_json(document))


@cache
def installed_version(package: str) -> str:
    """The installed version of a package, "absent" where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
