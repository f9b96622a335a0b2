"""The experiment as a graph, pure: nothing is read, nothing runs. It reads as the method section of the paper.

Every dataset is downloaded and brought into one chat schema, capped where a mixture caps it, and tokenized with loss
masks for each base model; each base model is finetuned on each mixture, and what others have tuned joins them; every
model answers every benchmark; answers are judged where a judge is needed, scored, and gathered in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.catalog import EXPERIMENTS, find_dataset
from flows.graph_answers import AnswersGraph
from flows.graph_data import DataGraph
from flows.graph_published import PaperNumbers
from flows.model_facts import model_facts
from tasks.finetune import FINETUNE, FinetuneParams
from tasks.recover import RECOVER, RecoverParams
from tasks.tabulate import TABULATE, TabulateParams, data_input, replies_input, training_input
from tulu_pipeline.artifacts.artifact import Artifact, Graph
from tulu_pipeline.artifacts.versions import VersionsLock
from tulu_pipeline.errors import BadInput, unknown_name
from tulu_pipeline.models import llama, tulu
from tulu_pipeline.reporting.data_table import DataRow
from tulu_pipeline.reporting.table import TableColumn, TableRow
from tulu_pipeline.specs.benchmark import Benchmark, Setting
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Mixture
from tulu_pipeline.specs.model import PretrainedModel, PretrainedTokenizer, TunedModel

VERSIONS_LOCK = Path(__file__).resolve().parents[1] / "tasks" / "versions.lock"


def graph_of(experiment: Experiment) -> Graph:
    """Everything an experiment needs, down from its table.

    Raises:
        NotFound: it names a dataset, benchmark or metric that is not there.
    """
    return Graph([_Compiler(experiment).table()])


def components_graph(experiment: Experiment, mixture: Mixture) -> Graph:
    """The conversations of a mixture's components, in order, and what they need; no model.

    Raises:
        NotFound: it names a dataset that is not there.
    """
    return Graph(DataGraph(experiment).component(mixture, index)[1] for index in range(len(mixture.components)))


def conversations_graph(experiment: Experiment, dataset: Dataset, tokenizer: PretrainedTokenizer) -> Graph:
    """A dataset's conversations, a tokenizer, and what they need; nothing of the experiment's models."""
    data = DataGraph(experiment)
    return Graph([data.conversations(dataset), data.tokenizer(tokenizer)])


def every_artifact() -> list[Artifact]:
    """The artifacts of all experiments of the project, and of a released diff; what the versions lock covers.

    An experiment of the project can hold no release: it would have to name a commit.
    """
    experiments = EXPERIMENTS.all()
    released = _Compiler(experiments[0]).already_tuned(tulu.FAMILY.releases[0].at("0" * 40))
    return [artifact for graph in (*map(graph_of, experiments), Graph([released])) for artifact in graph]


def versions_lock() -> VersionsLock:
    """The committed lock of code fingerprints."""
    return VersionsLock(VERSIONS_LOCK)


class _Compiler:
    """Builds the table of one experiment, and what it needs."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.data = DataGraph(experiment)
        self.answers = AnswersGraph(experiment, self.data)

    def table(self) -> Artifact:
        self._refuse_unknown_names()
        rows: list[TableRow] = []
        papers = PaperNumbers(self.experiment, self.answers)
        inputs: dict[str, Artifact] = {}
        for model in self.experiment.models:
            base = self.data.model(model)
            if self.experiment.untuned:
                rows.append(TableRow(name=model.name, label="untuned", base_model=model.name, untuned=True))
                papers.stand_beside(rows[-1], model)
                inputs |= self.answers.evaluated(model.name, base, model.tokenizer, tuned=False)
            for mixture in self.experiment.mixtures:
                name = f"{model.name}+{mixture.name}"
                label = mixture.label or mixture.name
                rows.append(TableRow(name=name, label=label, base_model=model.name, mixture=mixture.name))
                papers.stand_beside(rows[-1], model, mixture)
                checkpoint = self.finetuned(model, base, mixture)
                template = self.experiment.recipe_for(model, mixture).template
                asked = self.answers.evaluated(name, checkpoint, model.tokenizer, tuned=True, template=template)
                # A model that is asked nothing is not trained for the sake of its curves.
                inputs |= asked | ({training_input(name): checkpoint} if asked else {})
        # The table brings rows of one base model together: these follow what was trained here.
        for tuned in self.experiment.tuned_models:
            rows.append(
                TableRow(
                    name=tuned.name, label=tuned.label or tuned.name, base_model=tuned.base.name, mixture=tuned.mixture
                )
            )
            papers.stand_beside(rows[-1], tuned.base)
            inputs |= self.answers.evaluated(
                tuned.name, self.already_tuned(tuned), tuned.base.tokenizer, tuned=True, template=tuned.template
            )
        for recorded in self.experiment.recorded_models:
            rows.append(TableRow(name=recorded.name, label=recorded.label, base_model=""))
            inputs |= self.answers.recorded(recorded)
        for served in self.experiment.api_models:
            rows.append(TableRow(name=served.name, label=served.label, base_model=""))
            inputs |= self.answers.served(served)
        inputs |= _replies(inputs)
        columns = tuple(self._column(benchmark, setting) for benchmark, setting in self.answers.asked())
        datasets = [find_dataset(name, self.experiment) for name in self._described()]
        inputs |= {data_input(dataset.name): self.data.described(dataset) for dataset in datasets}
        counter = self.data.counting_tokenizer("the table of the data counts tokens") if datasets else None
        params = TabulateParams(
            title=self.experiment.title,
            rows=tuple(rows),
            columns=columns,
            notes=self.experiment.notes,
            average=self.experiment.average,
            data=tuple(_data_row(dataset) for dataset in datasets),
            data_tokenizer=counter.name if counter else "",
            papers_tokenizer=counter is not None and counter.sources == llama.TOKENIZER.sources,
            length=self.answers.judged_twice(),
            published=tuple(papers.scores),
        )
        return Artifact(stage=TABULATE, cell=self.experiment.name, params=params, inputs=inputs)

    def _refuse_unknown_names(self) -> None:
        """A misspelled exception would silently be none: another judge, all items, another recipe."""
        experiment = self.experiment
        metrics = [setting.metric for _, setting in self.answers.asked()]
        mixtures = [mixture.name for mixture in experiment.mixtures]
        for field, named, kind, known in (
            ("judges", experiment.judges, "metric", metrics),
            ("item_limit", experiment.item_limit, "metric", metrics),
            ("eight_bit_metrics", experiment.eight_bit_metrics, "metric", metrics),
            ("recipes", experiment.recipes, "mixture", mixtures),
        ):
            for name in named:
                if name not in known:
                    hint = unknown_name(kind, name, known)
                    where = f"{field} of experiment `{experiment.name}`"
                    raise BadInput(f"it has no {kind} `{name}`", where, hint.fix)

    def finetuned(self, model: PretrainedModel, base: Artifact, mixture: Mixture) -> Artifact:
        """The base model tuned on a mixture: an ordered list of tokenized components; nothing is copied."""
        recipe = self.experiment.recipe_for(model, mixture)
        inputs = {"model": base}
        for index in range(len(mixture.components)):
            cell, text = self.data.component(mixture, index)
            inputs[f"tokens_{index}"] = self.data.tokens(model.tokenizer, recipe, cell, text)
        params = FinetuneParams(
            recipe=recipe,
            components=tuple((part.dataset, part.repeat) for part in mixture.components),
            facts=model_facts(self.experiment, model, mixture),
        )
        return Artifact(stage=FINETUNE, cell=f"{model.name}+{mixture.name}", params=params, inputs=inputs)

    def already_tuned(self, tuned: TunedModel) -> Artifact:
        """A checkpoint as its makers published it; recovered from its base where that is a diff."""
        if tuned.diff is None:
            return self.data.download(tuned.name, tuned.sources)
        inputs = {"base": self.data.model(tuned.base), "diff": self.data.download(f"{tuned.name}-diff", tuned.sources)}
        if tuned.tokenizer is not None:
            inputs["tokenizer"] = self.data.tokenizer(tuned.tokenizer)
        params = RecoverParams(diff=tuned.diff, template=tuned.template)
        return Artifact(stage=RECOVER, cell=tuned.name, params=params, inputs=inputs)

    def _column(self, benchmark: Benchmark, setting: Setting) -> TableColumn:
        judge = self.answers.judge(setting)
        return TableColumn(
            metric=setting.metric,
            title=setting.title_by(judge),
            tuned_only=setting.tuned_only,
            benchmark=benchmark.name,
            lower_is_better=setting.lower_is_better,
            averaged=setting.averaged,
        )

    def _described(self) -> tuple[str, ...]:
        of_mixtures = (part.dataset for mixture in self.experiment.mixtures for part in mixture.components)
        return self.experiment.data_table or tuple(dict.fromkeys(of_mixtures))


def _replies(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """What was said of the answers of each cell that was judged or executed."""
    return {
        replies_input(*cell.removeprefix("score:").split("/", 1)): scored.inputs["replies"]
        for cell, scored in inputs.items()
        if cell.startswith("score:") and "replies" in scored.inputs
    }


def _data_row(dataset: Dataset) -> DataRow:
    return DataRow(
        name=dataset.name, title=dataset.title, license=dataset.license, sample=dataset.sample, paper=dataset.paper
    )
