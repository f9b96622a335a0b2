"""Everything that has a name, found by name: datasets, mixtures, models, benchmarks, experiments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tulu_pipeline.artifacts.source import LocalFile, Source
from tulu_pipeline.errors import BadInput, NotFound, unknown_name
from tulu_pipeline.registry import Registry, load_file
from tulu_pipeline.specs.benchmark import Benchmark
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Mixture, single
from tulu_pipeline.specs.model import Family, PretrainedModel, PretrainedTokenizer, Release, TunedModel

DATASETS = Registry("dataset", "tulu_pipeline.datasets", "DATASET", Dataset)
BENCHMARKS = Registry("benchmark", "tulu_pipeline.benchmarks", "BENCHMARK", Benchmark)
EXPERIMENTS = Registry("experiment", "tulu_pipeline.experiments", "EXPERIMENT", Experiment)
FAMILIES = Registry("model family", "tulu_pipeline.models", "FAMILY", Family)

_SHOWN = Dataset | Mixture | PretrainedModel | TunedModel | Release | Benchmark | Experiment


def in_file(name: str) -> tuple[Path, str] | None:
    """The file and the constant ("" where none is named) of `path/to/mine.py:CONSTANT`; None for any other name."""
    path, _, constant = name.partition(":")
    return (Path(path), constant) if path.endswith(".py") else None


def find_experiment(name: str) -> Experiment:
    """An experiment by name, or of a user's file: `path/to/mine.py` or `path/to/mine.py:EXPERIMENT`.

    Raises:
        NotFound: no such experiment. BadInput: the file holds none.
    """
    if place := in_file(name):
        path, constant = place
        registry = Registry("experiment", "tulu_pipeline.experiments", constant or EXPERIMENTS.constant, Experiment)
        return registry.from_module(load_file(path), None)
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


def find_release(name: str) -> Release:
    """A released checkpoint by name, of any family."""
    known = {release.name: release for family in FAMILIES.all() for release in family.releases}
    if name not in known:
        raise unknown_name("release", name, known)
    return known[name]


def find_tokenizer(name: str) -> PretrainedTokenizer:
    """A tokenizer by its name or that of a model, or of a folder that holds a `tokenizer.json` or a `vocab.json`."""
    folder = Path(name)
    if any((folder / each).is_file() for each in ("tokenizer.json", "vocab.json")):
        files = [*sorted(folder.glob("*token*")), folder / "vocab.json", folder / "merges.txt"]
        return PretrainedTokenizer(
            name=folder.resolve().name,
            sources={each.name: LocalFile(path=str(each)) for each in files if each.is_file()},
        )
    models = [model for family in FAMILIES.all() for model in family.models]
    known = {model.tokenizer.name: model.tokenizer for model in models}
    known |= {model.name: model.tokenizer for model in models}
    if name not in known:
        raise unknown_name("tokenizer or model", name, known)
    return known[name]


def find_mixture(name: str) -> Mixture:
    """A mixture by name."""
    known = {mixture.name: mixture for mixture in mixtures()}
    if name not in known:
        raise unknown_name("mixture", name, known)
    return known[name]


def find_mixture_of_file(name: str) -> tuple[Mixture, tuple[Dataset, ...]]:
    """A mixture by name, a dataset as a mixture of itself, or either of a user's file: `path/to/mine.py:MIXTURE`.

    Returns:
        The mixture, and the datasets that the file defines, by themselves or in an experiment.

    Raises:
        NotFound: no such mixture or dataset. BadInput: the file holds none.
    """
    if (place := in_file(name)) is None:
        known = {mixture.name: mixture for mixture in mixtures()}
        if name in known:
            return known[name], ()
        if name.partition(":")[0] not in DATASETS.names():
            raise unknown_name("mixture or dataset", name, [*known, *DATASETS.names()])
        return single(find_dataset(name).name), ()
    path, constant = place
    module = load_file(path)
    constant = constant or next((each for each in ("MIXTURE", "DATASET") if hasattr(module, each)), "MIXTURE")
    datasets = _datasets_of(module)
    match value := getattr(module, constant, None):
        case Mixture():
            return value, datasets
        case Dataset():
            return single(value.name), tuple(({each.name: each for each in datasets} | {value.name: value}).values())
    named = [f"`{path}:{each}`" for each, held in vars(module).items() if isinstance(held, Mixture | Dataset)]
    raise BadInput(
        f"no constant `{constant}`" if value is None else f"`{constant}` is a {type(value).__name__}",
        str(path),
        "make it a `Mixture` or a `Dataset`" + (f", or name one: {', '.join(named)}" if named else ""),
    )


def _datasets_of(module: ModuleType) -> tuple[Dataset, ...]:
    """The datasets that a file defines, by themselves or in an experiment."""
    found: dict[str, Dataset] = {}
    for value in vars(module).values():
        own = value.datasets if isinstance(value, Experiment) else (value,)
        found |= {dataset.name: dataset for dataset in own if isinstance(dataset, Dataset)}
    return tuple(found.values())


def mixtures() -> list[Mixture]:
    """Every mixture of the project."""
    from tulu_pipeline.mixtures import MIXTURES

    return list(MIXTURES.values())


def find_any(name: str) -> tuple[object, tuple[Dataset, ...]]:
    """Whatever is called `name`, or a constant of a user's file: `path/to/mine.py:MIXTURE`.

    Returns:
        A dataset, mixture, model, release, benchmark (of a metric: its own) or experiment, and the datasets that the
        file defines.

    Raises:
        NotFound: nothing is called so. BadInput: the file holds no such thing.
    """
    if place := in_file(name):
        path, constant = place
        module = load_file(path)
        constants = [constant] if constant else ["EXPERIMENT", "MIXTURE", "DATASET"]
        values = [getattr(module, each, None) for each in constants]
        known = [each for each in values if isinstance(each, _SHOWN)]
        if not known:
            raise BadInput(
                f"no dataset, mixture or experiment `{constant}`", str(path), f"define {' or '.join(constants)}"
            )
        return known[0], _datasets_of(module)
    for find in (find_dataset, find_benchmark, find_experiment, find_mixture, find_model, find_release):
        try:
            return find(name), ()
        except NotFound:
            continue
    metrics = {setting.metric: benchmark for benchmark in BENCHMARKS.all() for setting in benchmark.settings}
    if name in metrics:
        return metrics[name], ()
    names = [*DATASETS.names(), *BENCHMARKS.names(), *EXPERIMENTS.names(), *(each.name for each in mixtures())]
    names += [metric for metric in metrics if metric not in names]
    for family in FAMILIES.all():
        names += [*(model.name for model in family.models), *(release.name for release in family.releases)]
    raise unknown_name("dataset, mixture, model, benchmark, metric or experiment", name, names)


def describe(value: object) -> dict[str, object]:
    """The public facts of a registered object as plain values: no callables, other registered objects by name."""
    assert dataclasses.is_dataclass(value)
    shown = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name in ("module", "examples"):
        shown.pop(name, None)
    if variants := shown.pop("variants", None):
        shown["variants"] = sorted(variants)
    return {name: _plain(item) for name, item in shown.items() if not callable(item)}


def _plain(item: object) -> object:
    if isinstance(item, Source):
        return item.address()
    if dataclasses.is_dataclass(item):
        fields = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
        return fields.get("name") or {name: _plain(each) for name, each in fields.items() if not callable(each)}
    if isinstance(item, Mapping):
        return {str(name): _plain(each) for name, each in item.items()}
    if isinstance(item, tuple | list):
        return [_plain(each) for each in item]
    return item if item is None or isinstance(item, bool | int | float | str) else str(item)
