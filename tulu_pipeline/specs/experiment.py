"""What an experiment is: one frozen value from which the whole graph follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.api_model import ApiModel
from tulu_pipeline.specs.benchmark import Benchmark
from tulu_pipeline.specs.checks import check_choices, check_types
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.judge import Judge
from tulu_pipeline.specs.mixture import Mixture
from tulu_pipeline.specs.model import PretrainedModel, PretrainedTokenizer, TunedModel
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.specs.recorded_model import RecordedModel

Engine = Literal["vllm", "transformers"]
AverageRule = Literal["columns", "benchmarks", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What is trained on what and asked what.

    Attributes:
        name: id; the file's name.
        title: one line, for people.
        hypothesis: what it should show.
        reproduces: table or figure of the paper, "" for none.
        models: base models.
        mixtures: each base model is tuned on each of them.
        tuned_models: checkpoints that were tuned elsewhere; each is a row beside those of its base model, which need
            not be among `models`.
        recorded_models: rows whose answers were recorded by others; nothing is generated for them.
        untuned: whether the base models themselves are evaluated too.
        benchmarks: benchmark name to the metrics asked of it, in column order.
        api_models: rows that a provider's models answer.
        recipe: how models are tuned; `recipes` holds exceptions by mixture name.
        average: how a row's columns are averaged: `columns` (Tables 3-5), `benchmarks` (Table 8) or `none`.
        judges: who judges a metric, where it is not who its benchmark says.
        engine: what generates; part of the identity of completions.
        engine_dtype: compute type of generation.
        eight_bit_metrics: those that are answered as the paper answered MMLU and TruthfulQA, whatever `engine` and
            `engine_dtype` say: by transformers in float16, with weights in 8 bits.
        data_tokenizer: splits long chats and counts for the table of the data (the paper: LLaMA's, whatever the base
            model); None takes the first model's.
        data_table: datasets that the table of the data shows; empty for those of the mixtures.
        datasets, own_benchmarks: values that are not in the registries, for an experiment that carries its own.
        item_limit: metric to the number of items asked (spread evenly over the groups); absent asks all.
        samples: cap on the completions of an item below the benchmarks' own; None leaves those.
        max_new_tokens: cap on generated tokens below the benchmarks' own; None leaves those.
        notes: lines printed under the tables: caps, samples, deviations.
    """

    name: str
    title: str
    hypothesis: str
    models: tuple[PretrainedModel, ...]
    mixtures: tuple[Mixture, ...]
    benchmarks: Mapping[str, tuple[str, ...]]
    tuned_models: tuple[TunedModel, ...] = ()
    recorded_models: tuple[RecordedModel, ...] = ()
    api_models: tuple[ApiModel, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    untuned: bool = True
    reproduces: str = ""
    average: AverageRule = "columns"
    judges: Mapping[str, Judge] = field(default_factory=dict)
    engine: Engine = "vllm"
    engine_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    eight_bit_metrics: tuple[str, ...] = ()
    data_tokenizer: PretrainedTokenizer | None = None
    data_table: tuple[str, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    own_benchmarks: tuple[Benchmark, ...] = ()
    item_limit: Mapping[str, int] = field(default_factory=dict)
    samples: int | None = None
    max_new_tokens: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"experiment `{self.name}`"
        check_choices(self, where)
        check_types(self, where)
        caps = {f"item_limit[{metric!r}]": limit for metric, limit in self.item_limit.items()}
        for name, cap in (caps | {"samples": self.samples, "max_new_tokens": self.max_new_tokens}).items():
            if cap is not None and cap < 1:
                raise BadInput(f"{name} is {cap}", where, "write at least 1, or leave it out")

    def recipe_for(self, model: PretrainedModel, mixture: Mixture) -> Recipe:
        """The recipe of a model on a mixture: the mixture's own if there is one, with the model's size in mind."""
        recipe = self.recipes.get(mixture.name, self.recipe)
        if model.tune_learning_rate is not None:
            recipe = replace(recipe, learning_rate=model.tune_learning_rate)
        if model.tune_max_length_tokens is not None:
            recipe = replace(recipe, max_length_tokens=model.tune_max_length_tokens)
        return recipe
