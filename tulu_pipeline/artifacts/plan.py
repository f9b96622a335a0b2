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
from typing import Any

from tulu_pipeline.artifacts.artifact import Artifact, Graph
from tulu_pipeline.artifacts.canonical import sha256_text, text_of_plain, to_plain
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
        forced: asked for anew by --refresh.
        base_key: the key without the number of a refresh.
        attempt: how often it was refreshed; part of the key unless 0. A refresh that was begun and not published
            is gone on with, whether it is asked for again or not.
        waits_for: inputs without a digest, and sources without a hash.
        unresolved: the sources among them.
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
    unresolved: tuple[str, ...] = ()

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
        self._stale: dict[str, list[str]] = {}  # key to the names of the MISS nodes that have it
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

    def made(self, name: str, manifest: Manifest) -> list[str]:
        """`name` is published, and with it whatever has the same key; those above get their keys.

        Returns:
            The names of those above that turn out to be there.
        """
        names = self.twins(name)
        for twin in names:
            node = self.nodes[twin]
            node.status, node.manifest, node.forced = Status.HIT, manifest, False
        self._stale.pop(manifest.key, None)
        return self._settle_above(names)

    def gave_up(self, names: Iterable[str]) -> list[str]:
        """`names` will not be made in this run; a stage that tolerates missing inputs goes on without them.

        Returns:
            The names of those above that turn out to be there.
        """
        names = list(names)
        self._missing.update(names)
        return self._settle_above(names)

    def twins(self, name: str) -> list[str]:
        """The names of all stale artifacts that have the key of `name`, `name` among them."""
        key = self.nodes[name].key
        return list(self._stale.get(key, [name])) if key is not None else [name]

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

    def _settle_above(self, names: Iterable[str]) -> list[str]:
        queue, there = list(names), []
        while queue:
            for consumer in self.consumers[queue.pop()]:
                node = self.nodes[consumer]
                if node.status is Status.WAITS:
                    self._settle(node)
                    if node.digest is not None:
                        queue.append(consumer)
                        there.append(consumer)
        return there

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
        node.unresolved = tuple(name for name, descriptor in sources.items() if descriptor is None)
        node.waits_for = (*waits_for, *(f"source {name}" for name in node.unresolved))
        if node.waits_for:
            return
        node.identity = identity(artifact, inputs, sources)
        node.base_key = key_of(node.identity)
        self._look_up(node, self._attempts.get(node.base_key, 0))
        if node.forced and node.manifest is not None:
            self._look_up(node, node.attempt + 1)
        there = node.manifest is not None and self._store.has_payload(node.manifest)
        node.status = Status.HIT if there else Status.MISS
        if node.status is Status.MISS and node.key is not None:
            self._stale.setdefault(node.key, []).append(artifact.name)

    def _look_up(self, node: Node, attempt: int) -> None:
        node.attempt = attempt
        if attempt:
            node.identity["attempt"] = attempt
        node.key = key_of(node.identity) if attempt else node.base_key
        node.manifest = self._store.manifest(node.artifact.stage.name, node.key)


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
        "sources": to_plain(sources, artifact.name),
        "env": {package: installed_version(package) for package in artifact.stage.env},
    }
    code = {ref.name: fingerprint([ref.module]) for ref in artifact.objects if is_users(ref.module)}
    return document | ({"code": code} if code else {})


def key_of(document: dict[str, Any]) -> str:
    """sha256 of the canonical text of an identity document."""
    return sha256_text(text_of_plain(document))


@cache
def installed_version(package: str) -> str:
    """The installed version of a package, "absent" where it is not."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
