"""Everything that has a name, found by name: datasets, mixtures, models, benchmarks, experiments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tulu_pipeline.errors import unknown_name
from tulu_pipeline.registry import Registry, load_file
from tulu_pipeline.specs.benchmark import Benchmark
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Mixture
from tulu_pipeline.specs.model import Family, PretrainedModel

DATASETS = Registry("dataset", "tulu_pipeline.datasets", "DATASET", Dataset)
BENCHMARKS = Registry("benchmark", "tulu_pipeline.benchmarks", "BENCHMARK", Benchmark)
EXPERIMENTS = Registry("experiment", "tulu_pipeline.experiments", "EXPERIMENT", Experiment)
FAMILIES = Registry("model family", "tulu_pipeline.models", "FAMILY", Family)


def find_experiment(name: str) -> Experiment:
    """An experiment by name, or of a user's file: `path/to/mine.py` or `path/to/mine.py:EXPERIMENT`.

    Raises:
        NotFound: no such experiment. BadInput: the file holds none.
    """
    path, _, constant = name.partition(":")
    if path.endswith(".py"):
        registry = Registry("experiment", "tulu_pipeline.experiments", constant or EXPERIMENTS.constant, Experiment)
        return registry.from_module(load_file(Path(path)), None)
    return EXPERIMENTS.get(name)


def find_dataset(name: str, experiment: Experiment | None = None) -> Dataset:
    """A dataset by `name` or `name:variant`; an experiment's own datasets come first."""
    for own in experiment.datasets if experiment else ():
        if own.name == name:
            return own
    plain, _, variant = name.partition(":")
    dataset = DATASETS.get(plain)
    return dataset.variant(variant) if variant else dataset


def find_benchmark(name: str, experiment: Experiment | None = None) -> Benchmark:
    """A benchmark by name; an experiment's own benchmarks come first."""
    for own in experiment.own_benchmarks if experiment else ():
        if own.name == name:
            return own
    return BENCHMARKS.get(name)


def find_model(name: str) -> PretrainedModel:
    """A base model by name, of any family."""
    known = {model.name: model for family in FAMILIES.all() for model in family.models}
    if name not in known:
        raise unknown_name("model", name, known)
    return known[name]


def find_mixture(name: str) -> Mixture:
    """A mixture by name."""
    known = {mixture.name: mixture for mixture in mixtures()}
    if name not in known:
        raise unknown_name("mixture", name, known)
    return known[name]


def mixtures() -> list[Mixture]:
    """Every mixture of the project."""
    from tulu_pipeline.mixtures import MIXTURES

    return list(MIXTURES.values())


def describe(value: object) -> dict[str, object]:
    """The public facts of a registered object, for `tulu show`: no callables, sources by their address."""
    assert dataclasses.is_dataclass(value)
    shown: dict[str, object] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if callable(item) or field.name in {"module", "variants", "examples"}:
            continue
        if field.name == "sources":
            item = {name: source.address() for name, source in item.items()}
        shown[field.name] = item
    if variants := getattr(value, "variants", None):
        shown["variants"] = sorted(variants)
    return shown
