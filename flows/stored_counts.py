"""What a store knows of a dataset or a mixture: how many conversations were kept, dropped, changed, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.catalog import find_dataset
from flows.export import component_artifacts, components_of
from flows.graph import components_graph
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.canonical import to_plain
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.artifacts.versions import fingerprint, is_users
from tulu_pipeline.mixing.licenses import meaning, union
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.mixture import Component, Mixture

_COUNTS = ("rows", "kept", "dropped", "dropped_by_reason", "changed", "changed_by_reason", "not_drawn")
_LOGS = ("dropped", "changed")


def stored_dataset(dataset: Dataset, store: Store) -> dict[str, Any] | None:
    """The counts of the newest conversations of a dataset; None where the store has none.

    Those of its present converter come first; `"current"` says whether they are. A dataset of a user's file and one of
    the project that have one name are two.
    """
    found = [each for each in store.manifests(only="normalize") if _is_of(each, dataset) and store.has_payload(each)]
    if not found:
        return None
    manifest = max(found, key=lambda each: (_is_current(each, dataset), each.created, each.key))
    facts = {"converter_version": manifest.identity["objects"][_object(dataset)]}
    return _counts(manifest, store) | facts | {"current": _is_current(manifest, dataset)}


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


def _newest_like(store: Store, artifact: Artifact, dataset: Dataset) -> Manifest | None:
    """The newest artifact that was made as this one, from whatever raw files and with whatever tokenizer."""
    if artifact.stage.name == "normalize":
        return _newest(store, "normalize", lambda found: _is_current(found, dataset))
    params = to_plain(artifact.params)

    def wanted(found: Manifest) -> bool:
        whole = store.manifest("normalize", found.inputs["conversations"])
        return found.identity["params"] == params and whole is not None and _is_current(whole, dataset)

    return _newest(store, artifact.stage.name, wanted)


def _is_of(manifest: Manifest, dataset: Dataset) -> bool:
    """Whether these are conversations of the dataset, by whatever version of its code."""
    users = _object(dataset) in manifest.identity.get("code", {})
    return _object(dataset) in manifest.identity["objects"] and users == is_users(dataset.module)


def _is_current(manifest: Manifest, dataset: Dataset) -> bool:
    name = _object(dataset)
    if not _is_of(manifest, dataset) or manifest.identity["objects"][name] != dataset.converter_version:
        return False
    return not is_users(dataset.module) or manifest.identity["code"][name] == fingerprint([dataset.module])


def _object(dataset: Dataset) -> str:
    return f"dataset {dataset.name}"


def _newest(store: Store, stage: str, wanted: Callable[[Manifest], bool]) -> Manifest | None:
    found = [manifest for manifest in store.manifests(only=stage) if wanted(manifest) and store.has_payload(manifest)]
    return max(found, key=lambda manifest: (manifest.created, manifest.key), default=None)


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
