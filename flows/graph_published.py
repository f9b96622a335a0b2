"""The part of the graph that knows which of the paper's numbers may stand beside ours.

The paper's names alone do not tell: a number of the paper stands beside what was made and asked as the paper made and
asked it, and an average beside the average of the same columns.
"""

from __future__ import annotations

from dataclasses import replace

from flows.catalog import BENCHMARKS, find_dataset, find_model, mixtures
from flows.graph_answers import AnswersGraph, asked_as
from tulu_pipeline.artifacts.canonical import to_plain
from tulu_pipeline.reporting.paper import PublishedScore, published_percent
from tulu_pipeline.reporting.table import AVERAGE, TableRow
from tulu_pipeline.specs.benchmark import Benchmark, Setting
from tulu_pipeline.specs.columns import PAPER_ITEMS, TABLE_3
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Mixture, single
from tulu_pipeline.specs.model import PretrainedModel
from tulu_pipeline.specs.recipe import Recipe

_AVERAGED = frozenset(metric for metrics in TABLE_3.values() for metric in metrics)


class PaperNumbers:
    """Gathers the paper's numbers for the rows of one experiment.

    Attributes:
        scores: those found so far, in the order of the rows.
    """

    def __init__(self, experiment: Experiment, answers: AnswersGraph) -> None:
        self.experiment, self.answers = experiment, answers
        self.scores: list[PublishedScore] = []

    def stand_beside(self, row: TableRow, model: PretrainedModel, mixture: Mixture | None = None) -> None:
        """Adds what the paper prints for a row.

        Args:
            row: names the base model and the mixture.
            model: the base model.
            mixture: what it is tuned on here; None where it is not.
        """
        found = {}
        for metric in (*(setting.metric for _, setting in self.answers.asked()), AVERAGE):
            percent = published_percent(base_model=row.base_model, mixture=row.mixture, metric=metric)
            if percent is not None:
                found[metric] = percent
        if not found or not self._made_as_in_the_paper(model, mixture):
            return
        asked = {
            setting.metric
            for benchmark, setting in self.answers.asked()
            if self._asked_as_in_the_paper(benchmark, setting)
        }
        averaged = {setting.metric for _, setting in self.answers.asked() if setting.averaged}
        if averaged == _AVERAGED <= asked and self.experiment.average != "none":
            asked.add(AVERAGE)
        self.scores += (
            PublishedScore(row=row.name, metric=metric, percent=percent)
            for metric, percent in found.items()
            if metric in asked
        )

    def _made_as_in_the_paper(self, model: PretrainedModel, mixture: Mixture | None) -> bool:
        """Whether model, mixture, datasets and recipe are what the project calls by these names."""
        if model != find_model(model.name):
            return False
        if mixture is None:
            return True
        known = {each.name: each for each in mixtures()}.get(mixture.name) or single(mixture.name)
        return (
            replace(mixture, label=known.label) == known
            and all(
                find_dataset(part.dataset, self.experiment) == find_dataset(part.dataset) for part in known.components
            )
            and self._tuned_as_in_the_paper(model, mixture)
        )

    def _tuned_as_in_the_paper(self, model: PretrainedModel, mixture: Mixture) -> bool:
        """Whether the recipe is the paper's; another seed, and what control tokens in messages become, are no other."""
        recipe = self.experiment.recipe_for(model, mixture)
        papers = replace(self.experiment, recipe=Recipe(), recipes={}).recipe_for(model, mixture)
        papers = replace(papers, seed=recipe.seed, special_in_text=recipe.special_in_text)
        return bool(to_plain(recipe) == to_plain(papers))

    def _asked_as_in_the_paper(self, benchmark: Benchmark, setting: Setting) -> bool:
        """Whether the benchmark is the project's, with all of the paper's items, its sampling and its own judge."""
        experiment = self.experiment
        known = setting.metric in PAPER_ITEMS and benchmark.name in BENCHMARKS.names()
        if not known or benchmark != BENCHMARKS.get(benchmark.name):
            return False
        items, asked = PAPER_ITEMS[setting.metric], asked_as(benchmark, setting)
        uncapped = asked.sampling.capped(experiment.max_new_tokens, experiment.samples) == asked.sampling
        by_own_judge = bool(to_plain(self.answers.judge(setting)) == to_plain(setting.judge))
        return experiment.item_limit.get(asked.metric, items) >= items and uncapped and by_own_judge
