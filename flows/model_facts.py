"""What a finetuned model is made of, for its card: from the experiment, never part of a key."""

from __future__ import annotations

from collections.abc import Mapping

from flows.catalog import find_benchmark, find_dataset
from tulu_pipeline.artifacts.source import HubFile, HubModel, Source
from tulu_pipeline.export.model_facts import BaseFacts, DataFacts, ModelFacts
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Component, Mixture
from tulu_pipeline.specs.model import PretrainedModel


def model_facts(experiment: Experiment, model: PretrainedModel, mixture: Mixture) -> ModelFacts:
    """What `model` tuned on `mixture` is made of.

    Raises:
        NotFound: a dataset or benchmark is not there.
    """
    repo, revision = _hub(model.sources)
    base = BaseFacts(
        name=model.name,
        license=model.license,
        architecture=model.architecture,
        parameters=model.parameters,
        pretraining_tokens=model.pretraining_tokens,
        context_tokens=model.context_tokens,
        special_tokens=model.tokenizer.special_tokens,
        tuned_embedding_rows=model.tuned_embedding_rows,
        repo=repo,
        revision=revision,
    )
    components = zip(mixture.components, mixture.caps(), strict=True)
    return ModelFacts(
        experiment=experiment.name,
        title=experiment.title,
        mixture=mixture.name,
        base=base,
        data=tuple(_data(experiment, part, cap, mixture.seed) for part, cap in components),
        asked=tuple(find_benchmark(name, experiment).title for name in experiment.benchmarks),
        notes=experiment.notes,
    )


def _data(experiment: Experiment, part: Component, cap: int | None, seed: int) -> DataFacts:
    dataset = find_dataset(part.dataset, experiment)
    files = [source for source in dataset.sources.values() if isinstance(source, HubFile)]
    return DataFacts(
        dataset=dataset.name,
        title=dataset.title,
        citation=dataset.citation,
        url=dataset.url,
        license=dataset.license,
        sample=dataset.sample,
        repeat=part.repeat,
        choice=_choice(part, cap, seed),
        languages=part.languages,
        repo=next((file.repo for file in files if file.kind == "dataset"), ""),
    )


def _choice(part: Component, cap: int | None, seed: int) -> str:
    words = []
    if part.deduplicate:
        words.append(f"no {part.deduplicate} duplicates")
    if part.languages:
        words.append(f"in {' or '.join(part.languages)}")
    if part.licenses:
        words.append(f"under {' or '.join(part.licenses)}")
    if cap is not None:
        words.append(f"at most {cap:,}, drawn with seed {seed}")
    return "; ".join(words) or "all"


def _hub(sources: Mapping[str, Source]) -> tuple[str, str]:
    """Repository and commit that the weights are from."""
    for source in sources.values():
        if isinstance(source, HubModel) and source.part != "tokenizer":
            return source.repo, source.revision
    for source in sources.values():
        if isinstance(source, HubFile) and source.kind == "model":
            return source.repo, source.revision
    return "", ""
