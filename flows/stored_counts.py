"""What a store knows of a dataset or a mixture: how many conversations were kept, dropped, changed, and why."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.catalog import find_dataset
from flows.export import component_artifacts, components_of
from flows.graph import components_graph
from flows.session import resolver_of
from tulu_pipeline.artifacts.artifact import Artifact, Graph
from tulu_pipeline.artifacts.canonical import to_plain
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.plan import Node, Plan
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.artifacts.versions import fingerprint, is_users
from tulu_pipeline.errors import BadInput
from tulu_pipeline.mixing.licenses import meaning, union
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.mixture import Component, Mixture, single

_COUNTS = ("rows", "kept", "dropped", "dropped_by_reason", "changed", "changed_by_reason", "not_drawn")
_LOGS = ("dropped", "changed")
_NAMED_FILES = 3  # of more, only whose they are


def stored_dataset(dataset: Dataset, store: Store) -> dict[str, Any] | None:
    """The counts of the newest conversations of a dataset; None where the store has none.

    Those of its present files and converter come first; `"current"` says whether they are, `"changed_since"` what has
    changed. A dataset of a user's file and one of the project that have one name are two.
    """
    found = [each for each in store.manifests(only="normalize") if _is_of(each, dataset) and store.has_payload(each)]
    if not found:
        return None
    mixture = single(dataset.name)
    graph = components_graph(components_of(mixture, (dataset,), _any_tokenizer()), mixture)
    present = _Present(component_artifacts(graph, mixture)[0], store)
    manifest = max(found, key=lambda each: (not present.changed_since(each), each.created, each.key))
    changed = present.changed_since(manifest)
    version = manifest.identity["objects"][_object(dataset)]
    return _counts(manifest, store) | {
        "converter_version": version,
        "current": not changed,
        "changed_since": changed,
    }


def stored_mixture(mixture: Mixture, datasets: tuple[Dataset, ...], store: Store) -> dict[str, Any]:
    """The components of a mixture, each with its counts where the store has it, and the licenses of the whole.

    A license is that of the conversations where they are there (`"exact": true`), else the one that the dataset states.

    Args:
        mixture: what is shown.
        datasets: those that are in no registry.
        store: where counts are looked for.
    """
    experiment = components_of(mixture, datasets, _any_tokenizer())
    graph = components_graph(experiment, mixture)
    components: list[dict[str, Any]] = []
    for part, cap, artifact in zip(
        mixture.components, mixture.caps(), component_artifacts(graph, mixture), strict=True
    ):
        dataset = find_dataset(part.dataset, experiment)
        manifest = _newest_like(store, artifact, dataset)
        components.append(
            {
                "dataset": part.dataset,
                "takes_at_most": cap,
                "repeat": part.repeat,
                "licenses": list(_licenses(part, dataset, manifest, store)),
                "exact": manifest is not None,
                "stored": None if manifest is None else _counts(manifest, store),
            }
        )
    whole = union(license_ for each in components for license_ in each["licenses"])
    return {"components": components, "licenses": {license_: meaning(license_) for license_ in whole}}


class _Present:
    """A dataset's conversations as they would be made now, with whatever tokenizer.

    Its files are looked at when this is first asked for, so that nothing is read where there is nothing to compare.
    """

    def __init__(self, conversations: Artifact, store: Store) -> None:
        self._artifact, self._store = conversations, store

    def changed_since(self, manifest: Manifest) -> list[str]:
        """What is not as it was when these conversations were made, for people; empty where nothing is."""
        then, changed = manifest.identity, []
        if then["stage_version"] != self._artifact.stage.version:
            changed.append(f"stage {then['stage']} {then['stage_version']} → {self._artifact.stage.version}")
        for converter in self._artifact.objects:
            if (version := then["objects"][converter.name]) != converter.version:
                changed.append(f"converter version {version} → {converter.version}")
            if is_users(converter.module) and then["code"][converter.name] != fingerprint([converter.module]):
                changed.append(f"the code of {Path(converter.module).name}")
        if self._raw is None or self._raw.manifest is None or self._raw.manifest.digest != then["inputs"]["raw"]:
            changed.append(self._changed_files(manifest))
        return changed

    @cached_property
    def _raw(self) -> Node | None:
        """The dataset's files in a plan of their own; None where one of them is not there."""
        download = self._artifact.inputs["raw"]
        try:
            plan = Plan(Graph([download]), self._store, resolver_of(self._store, read_settings()))
        except BadInput:
            return None
        return plan.nodes[download.name]

    def _changed_files(self, manifest: Manifest) -> str:
        raw = self._artifact.inputs["raw"]
        before = self._store.manifest(raw.stage.name, manifest.inputs["raw"])
        then = before.identity["sources"] if before is not None else {}
        now = self._raw.identity.get("sources", {}) if self._raw is not None else {}
        names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        return ", ".join(names) if 0 < len(names) <= _NAMED_FILES else f"files of {raw.cell}"


def _newest_like(store: Store, artifact: Artifact, dataset: Dataset) -> Manifest | None:
    """The newest artifact that was made as this one, with whatever tokenizer."""
    whole = artifact.inputs.get("conversations", artifact)
    present = _Present(whole, store)
    conversations = store.manifests(only=whole.stage.name)
    current = [each for each in conversations if _is_of(each, dataset) and not present.changed_since(each)]
    if artifact is whole:
        return _newest(store, current)
    params, digests = to_plain(artifact.params), {each.digest for each in current}
    return _newest(
        store,
        (
            found
            for found in store.manifests(only=artifact.stage.name)
            if found.identity["params"] == params and found.identity["inputs"]["conversations"] in digests
        ),
    )


def _is_of(manifest: Manifest, dataset: Dataset) -> bool:
    """Whether these are conversations of the dataset, by whatever version of its code."""
    users = _object(dataset) in manifest.identity.get("code", {})
    return _object(dataset) in manifest.identity["objects"] and users == is_users(dataset.module)


def _object(dataset: Dataset) -> str:
    return f"dataset {dataset.name}"


def _newest(store: Store, found: Iterable[Manifest]) -> Manifest | None:
    there = [manifest for manifest in found if store.has_payload(manifest)]
    return max(there, key=lambda manifest: (manifest.created, manifest.key), default=None)


def _counts(manifest: Manifest, store: Store) -> dict[str, Any]:
    there = {entry.path for entry in manifest.aux}
    folder = f"{store.url}/{manifest.payload}"
    files = {f"{log}_file": f"{folder}/aux/{log}.jsonl" for log in _LOGS if f"aux/{log}.jsonl" in there}
    counts = {name: manifest.metrics[name] for name in _COUNTS if name in manifest.metrics}
    return {"made": manifest.created, "key": manifest.key, "folder": folder} | counts | files


def _licenses(part: Component, dataset: Dataset, manifest: Manifest | None, store: Store) -> tuple[str, ...]:
    if manifest is not None:
        from tulu_pipeline.export.folder import licenses_in

        return licenses_in(Path(store.path(manifest)), dataset.license)
    return union(part.licenses or [dataset.license])


def _any_tokenizer() -> Any:
    """Only so that the graph compiles: artifacts are looked up whatever their tokenizer."""
    from tulu_pipeline.models.llama import TOKENIZER

    return TOKENIZER
