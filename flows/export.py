"""A mixture as Parquet: what of its components is missing is made, then all is written to one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.catalog import find_dataset, find_mixture_of_file, find_tokenizer
from flows.graph import components_graph
from flows.session import Request, Session, make_all, prepare_graph
from tulu_pipeline.artifacts.stage import ReportProgress, no_progress
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Mixture

if TYPE_CHECKING:
    from tulu_pipeline.artifacts.artifact import Artifact, Graph
    from tulu_pipeline.export.folder import Part
    from tulu_pipeline.specs.dataset import Dataset
    from tulu_pipeline.specs.model import PretrainedTokenizer

DEFAULT_PARENT = Path("exports")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        folder: where.
        rows: conversations, repeated ones as often as they stand there.
        licenses: of the whole.
        made: names of the artifacts that had to be made for it.
    """

    folder: Path
    rows: int
    licenses: tuple[str, ...]
    made: tuple[str, ...]


def export(
    name: str,
    *,
    out: Path | None = None,
    tokenizer: str = "llama",
    store: str | None = None,
    profile: str | None = None,
    progress: ReportProgress = no_progress,
    on_licenses: Callable[[tuple[str, ...]], None] = lambda licenses: None,
) -> Exported:
    """Write a mixture as a folder that `datasets` opens.

    Args:
        name: a mixture, a dataset, or `path/to/file.py:CONSTANT`.
        out: the folder; None takes `exports/<mixture>`.
        tokenizer: splits long chats where a dataset does so: its name, a model's, or a folder.
        store: root of the store; None takes TULU_STORE or `./store`.
        profile: execution profile.
        progress: how far it is.
        on_licenses: told the licenses of the whole before anything is written to `out`.

    Raises:
        TuluError: a component cannot be made; the first root cause. BadInput: `out` holds something else.
    """
    from tulu_pipeline.export.folder import refuse_foreign, union_of, write_folder

    mixture, datasets = find_mixture_of_file(name)
    folder = out or DEFAULT_PARENT / mixture.name
    refuse_foreign(folder)
    experiment = components_of(mixture, datasets, find_tokenizer(tokenizer))
    request = Request(experiment=experiment.name, store=store, profile=profile)
    session = prepare_graph(request, experiment, components_graph(experiment, mixture), progress)
    result = make_all(session)
    parts = list(_parts(session, mixture))
    licenses = union_of(parts)
    on_licenses(licenses)
    rows = write_folder(folder, mixture.name, mixture.label, parts, progress)
    return Exported(folder=folder, rows=rows, licenses=licenses, made=tuple(result.executed))


def components_of(mixture: Mixture, datasets: tuple[Dataset, ...], tokenizer: PretrainedTokenizer | None) -> Experiment:
    """An experiment that only gathers the components of a mixture: no model, no benchmark."""
    return Experiment(
        name=f"export-{mixture.name}",
        title=f"The components of {mixture.name}",
        hypothesis="",
        models=(),
        mixtures=(mixture,),
        benchmarks={},
        data_tokenizer=tokenizer,
        datasets=datasets,
    )


def component_artifacts(graph: Graph, mixture: Mixture) -> list[Artifact]:
    """What holds each component's conversations, in order."""
    found = []
    for part in mixture.components:
        mixed = graph.by_name.get(f"mix[{mixture.name}/{part.dataset}]")
        found.append(mixed or graph.by_name[f"normalize[{part.dataset}]"])
    return found


def _parts(session: Session, mixture: Mixture) -> Iterable[Part]:
    from tulu_pipeline.export.folder import Part

    for component, artifact in zip(mixture.components, component_artifacts(session.graph, mixture), strict=True):
        dataset, manifest = (
            find_dataset(component.dataset, session.experiment),
            session.plan.nodes[artifact.name].manifest,
        )
        assert manifest is not None, f"{artifact.name} was made"
        yield Part(
            dataset=dataset.name,
            title=dataset.title,
            citation=dataset.citation,
            url=dataset.url,
            license=dataset.license,
            sample=dataset.sample,
            conversations=session.store.path(manifest),
            artifact=artifact.name,
            key=manifest.key,
            digest=manifest.digest,
            params=manifest.identity["params"],
            repeat=component.repeat,
        )
