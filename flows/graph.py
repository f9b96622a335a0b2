"""The experiment as a graph, pure: nothing is read, nothing runs. It reads as the method section of the paper.

Every dataset is downloaded and brought into one chat schema, capped where a mixture caps it, and tokenized with loss
masks for each base model; each base model is finetuned on each mixture, and what others have tuned joins them; every
model answers every benchmark; answers are judged where a judge is needed, scored, and gathered in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.catalog import EXPERIMENTS, find_benchmark, find_dataset
from flows.model_facts import model_facts
from tasks.describe import DESCRIBE, DescribeParams
from tasks.download import DOWNLOAD, DownloadParams
from tasks.finetune import FINETUNE, FinetuneParams
from tasks.generate import GENERATE, generate_params
from tasks.import_completions import IMPORT, ImportParams
from tasks.judge import JUDGE, JudgeParams
from tasks.mix import MIX, MixParams
from tasks.normalize import NORMALIZE, NormalizeParams
from tasks.recover import RECOVER, RecoverParams
from tasks.score import SCORE, ScoreParams
from tasks.tabulate import TABULATE, TabulateParams, completions_input, data_input, score_input
from tasks.tokenization import TOKENIZE, TokenizeParams
from tulu_pipeline.artifacts.artifact import Artifact, Graph, ObjectRef
from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.artifacts.versions import VersionsLock
from tulu_pipeline.chat.options import Template
from tulu_pipeline.errors import BadInput
from tulu_pipeline.models import llama
from tulu_pipeline.reporting.data_table import DataRow
from tulu_pipeline.reporting.table import TableColumn, TableRow
from tulu_pipeline.specs.benchmark import Benchmark, Setting
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Mixture
from tulu_pipeline.specs.model import PretrainedModel, PretrainedTokenizer, TunedModel
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.specs.recorded_model import RecordedModel

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
    return Graph(_Compiler(experiment).component(mixture, index)[1] for index in range(len(mixture.components)))


def conversations_graph(experiment: Experiment, dataset: Dataset, tokenizer: PretrainedTokenizer) -> Graph:
    """A dataset's conversations, a tokenizer, and what they need; nothing of the experiment's models."""
    compiler = _Compiler(experiment)
    return Graph([compiler.conversations(dataset), compiler.tokenizer(tokenizer)])


def every_artifact() -> list[Artifact]:
    """The artifacts of all experiments of the project; what the versions lock covers."""
    return [artifact for experiment in EXPERIMENTS.all() for artifact in graph_of(experiment)]


def versions_lock() -> VersionsLock:
    """The committed lock of code fingerprints."""
    return VersionsLock(VERSIONS_LOCK)


class _Compiler:
    """Builds the artifacts of one experiment; what is shared is one object."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._downloads: dict[str, Artifact] = {}
        self._conversations: dict[str, Artifact] = {}
        self._tokens: dict[str, Artifact] = {}
        self._generated: dict[str, Artifact] = {}
        self._imported: dict[str, Artifact] = {}

    def table(self) -> Artifact:
        rows: list[TableRow] = []
        inputs: dict[str, Artifact] = {}
        for model in self.experiment.models:
            base = self.model(model)
            if self.experiment.untuned:
                rows.append(TableRow(name=model.name, label="untuned", base_model=model.name, untuned=True))
                inputs |= self.evaluated(model.name, base, model.tokenizer, tuned=False)
            for mixture in self.experiment.mixtures:
                name = f"{model.name}+{mixture.name}"
                label = mixture.label or mixture.name
                rows.append(TableRow(name=name, label=label, base_model=model.name, mixture=mixture.name))
                checkpoint = self.finetuned(model, base, mixture)
                template = self.experiment.recipe_for(model, mixture).template
                inputs |= self.evaluated(name, checkpoint, model.tokenizer, tuned=True, template=template)
        # The table brings rows of one base model together: these follow what was trained here.
        for tuned in self.experiment.tuned_models:
            rows.append(
                TableRow(
                    name=tuned.name, label=tuned.label or tuned.name, base_model=tuned.base.name, mixture=tuned.mixture
                )
            )
            inputs |= self.evaluated(
                tuned.name, self.already_tuned(tuned), tuned.base.tokenizer, tuned=True, template=tuned.template
            )
        for recorded in self.experiment.recorded_models:
            rows.append(TableRow(name=recorded.name, label=recorded.label, base_model=""))
            inputs |= self.scored_records(recorded)
        columns = tuple(self._column(benchmark, setting) for benchmark, setting in self._asked())
        datasets = [find_dataset(name, self.experiment) for name in self._described()]
        inputs |= {data_input(dataset.name): self.described(dataset) for dataset in datasets}
        counter = self._data_tokenizer("the table of the data counts tokens") if datasets else None
        params = TabulateParams(
            title=self.experiment.title,
            rows=tuple(rows),
            columns=columns,
            notes=self.experiment.notes,
            average=self.experiment.average,
            data=tuple(_data_row(dataset) for dataset in datasets),
            data_tokenizer=counter.name if counter else "",
            papers_tokenizer=counter is not None and counter.sources == llama.TOKENIZER.sources,
        )
        return Artifact(stage=TABULATE, cell=self.experiment.name, params=params, inputs=inputs)

    def model(self, model: PretrainedModel) -> Artifact:
        return self._download(model.name, model.sources)

    def tokenizer(self, tokenizer: PretrainedTokenizer) -> Artifact:
        return self._download(f"{tokenizer.name}-tokenizer", tokenizer.sources)

    def conversations(self, dataset: Dataset) -> Artifact:
        """The dataset in one chat schema; a dataset that splits long chats also follows from a tokenizer."""
        if dataset.name not in self._conversations:
            inputs = {"raw": self._download(dataset.name, dataset.sources)}
            if dataset.splits_by_tokens:
                inputs["tokenizer"] = self.tokenizer(self._splits_by(dataset))
            self._conversations[dataset.name] = Artifact(
                stage=NORMALIZE,
                cell=dataset.name,
                params=self._normalize_params(dataset),
                inputs=inputs,
                objects=(_ref(dataset),),
            )
        return self._conversations[dataset.name]

    def described(self, dataset: Dataset) -> Artifact:
        """What a dataset holds, in tokens of the experiment's tokenizer."""
        counter = self._data_tokenizer("the table of the data counts tokens")
        recipe = self.experiment.recipe
        made = self._normalize_params(dataset)
        params = DescribeParams(
            dataset=dataset.name,
            tokenizer_mode=counter.mode if recipe.template == "tulu" else None,
            loss_span=recipe.loss_span,
            special_in_text=recipe.special_in_text,
            max_length_tokens=recipe.max_length_tokens,
            template=recipe.template,
            # What was dropped is counted too, and is no part of what the conversations are known by: other raw rows,
            # another converter or another version of the stage may give the same conversations.
            normalize_version=NORMALIZE.version,
            normalize_seed=made.seed,
            normalize_tokenizer_mode=made.tokenizer_mode,
        )
        inputs = {
            "conversations": self.conversations(dataset),
            "raw": self._download(dataset.name, dataset.sources),
            "tokenizer": self.tokenizer(counter),
        }
        return Artifact(stage=DESCRIBE, cell=dataset.name, params=params, inputs=inputs, objects=(_ref(dataset),))

    def component(self, mixture: Mixture, index: int) -> tuple[str, Artifact]:
        """A component's conversations, filtered and drawn where the mixture says so; and what to call them."""
        component, cap = mixture.components[index], mixture.caps()[index]
        dataset = find_dataset(component.dataset, self.experiment)
        whole = self.conversations(dataset)
        if cap is None and not (component.deduplicate or component.languages or component.licenses):
            return dataset.name, whole
        cell = f"{mixture.name}/{dataset.name}"
        params = MixParams(
            dataset=dataset.name,
            cap=cap,
            seed=42 if cap is None else mixture.seed,  # without a cap nothing is drawn
            whole_cap=component.weight is not None,
            deduplicate=component.deduplicate,
            languages=tuple(sorted(component.languages)),
            licenses=tuple(sorted(component.licenses)),
            dataset_license=dataset.license if component.licenses else "",
        )
        return cell, Artifact(stage=MIX, cell=cell, params=params, inputs={"conversations": whole})

    def tokens(self, tokenizer: PretrainedTokenizer, recipe: Recipe, cell: str, text: Artifact) -> Artifact:
        """Conversations as token ids and loss masks; once per tokenizer, template and length."""
        params = TokenizeParams(
            max_length_tokens=recipe.max_length_tokens,
            loss_span=recipe.loss_span,
            tokenizer_mode=tokenizer.mode if recipe.template == "tulu" else None,
            special_in_text=recipe.special_in_text,
            template=recipe.template,
        )
        inputs = {"conversations": text, "tokenizer": self.tokenizer(tokenizer)}
        name = f"{tokenizer.name}+{cell}" + ("" if recipe.template == "tulu" else f"@{recipe.template}")
        for suffix in ("", f"@{recipe.max_length_tokens}", f"@{recipe.max_length_tokens}-{recipe.loss_span}"):
            made = Artifact(stage=TOKENIZE, cell=name + suffix, params=params, inputs=inputs)
            known = self._tokens.setdefault(made.cell, made)
            if known.params == params and known.inputs["conversations"] is text:
                return known
        raise BadInput(f"two ways to tokenize are both called `{made.cell}`", self.experiment.name, "rename a mixture")

    def finetuned(self, model: PretrainedModel, base: Artifact, mixture: Mixture) -> Artifact:
        """The base model tuned on a mixture: an ordered list of tokenized components; nothing is copied."""
        recipe = self.experiment.recipe_for(model, mixture)
        inputs = {"model": base}
        for index in range(len(mixture.components)):
            cell, text = self.component(mixture, index)
            inputs[f"tokens_{index}"] = self.tokens(model.tokenizer, recipe, cell, text)
        params = FinetuneParams(
            recipe=recipe,
            components=tuple((part.dataset, part.repeat) for part in mixture.components),
            facts=model_facts(self.experiment, model, mixture),
        )
        return Artifact(stage=FINETUNE, cell=f"{model.name}+{mixture.name}", params=params, inputs=inputs)

    def already_tuned(self, tuned: TunedModel) -> Artifact:
        """A checkpoint as its makers published it; recovered from its base where that is a diff."""
        if tuned.diff is None:
            return self._download(tuned.name, tuned.sources)
        inputs = {"base": self.model(tuned.base), "diff": self._download(f"{tuned.name}-diff", tuned.sources)}
        if tuned.tokenizer is not None:
            inputs["tokenizer"] = self.tokenizer(tuned.tokenizer)
        params = RecoverParams(diff=tuned.diff, template=tuned.template)
        return Artifact(stage=RECOVER, cell=tuned.name, params=params, inputs=inputs)

    def evaluated(
        self,
        row: str,
        checkpoint: Artifact,
        tokenizer: PretrainedTokenizer,
        *,
        tuned: bool,
        template: Template = "tulu",
    ) -> dict[str, Artifact]:
        """Inputs of the table for one row: completions and scores for each metric."""
        cells: dict[str, Artifact] = {}
        for benchmark, setting in self._asked():
            if setting.tuned_only and not tuned:
                continue
            asked_as = benchmark.setting(setting.same_completions_as or setting.metric)
            completions = self._completions(row, checkpoint, benchmark, asked_as, tuned=tuned, template=template)
            cells[score_input(row, setting.metric)] = self._scored(row, completions, tokenizer, benchmark, setting)
            cells[completions_input(row, setting.metric)] = completions
        return cells

    def scored_records(self, recorded: RecordedModel) -> dict[str, Artifact]:
        """Inputs of the table for a row whose answers are recorded, where they are."""
        cells: dict[str, Artifact] = {}
        for benchmark, setting in self._asked():
            if benchmark.name not in recorded.outputs:
                continue
            asked_as = benchmark.setting(setting.same_completions_as or setting.metric)
            completions = self._recorded(recorded, benchmark, asked_as)
            counter = self._data_tokenizer(f"the judge of `{setting.metric}` counts tokens")
            cells[score_input(recorded.name, setting.metric)] = self._scored(
                recorded.name, completions, counter, benchmark, setting
            )
            cells[completions_input(recorded.name, setting.metric)] = completions
        return cells

    def _recorded(self, recorded: RecordedModel, benchmark: Benchmark, setting: Setting) -> Artifact:
        cell = f"{recorded.name}/{setting.metric}"
        if cell not in self._imported:
            outputs = {"outputs": recorded.outputs[benchmark.name]}
            params = ImportParams(
                benchmark=benchmark.name,
                metric=setting.metric,
                options=setting.options,
                item_limit=self.experiment.item_limit.get(setting.metric),
                missing_are_empty=recorded.missing_are_empty,
                definition=benchmark,
            )
            self._imported[cell] = Artifact(
                stage=IMPORT,
                cell=cell,
                params=params,
                inputs={
                    "benchmark": self._download(benchmark.name, benchmark.sources),
                    "outputs": self._download(f"{recorded.name}-{benchmark.name}", outputs),
                },
                objects=(_prompts(benchmark),),
            )
        return self._imported[cell]

    def _completions(
        self,
        row: str,
        checkpoint: Artifact,
        benchmark: Benchmark,
        setting: Setting,
        *,
        tuned: bool,
        template: Template,
    ) -> Artifact:
        params = generate_params(
            benchmark,
            setting.metric,
            tuned=tuned,
            engine=self.experiment.engine,
            engine_dtype=self.experiment.engine_dtype,
            item_limit=self.experiment.item_limit.get(setting.metric),
            max_new_tokens=self.experiment.max_new_tokens,
            template=template,
        )
        made = Artifact(
            stage=GENERATE,
            cell=f"{row}/{setting.metric}",
            group=row,
            params=params,
            inputs={"model": checkpoint, "benchmark": self._download(benchmark.name, benchmark.sources)},
            objects=(_prompts(benchmark),),
        )
        return self._generated.setdefault(made.cell, made)

    def _scored(
        self, row: str, completions: Artifact, tokenizer: PretrainedTokenizer, benchmark: Benchmark, setting: Setting
    ) -> Artifact:
        asked = self._download(benchmark.name, benchmark.sources)
        inputs = {"completions": completions, "benchmark": asked}
        judge = self.experiment.judges.get(setting.metric, setting.judge)
        if judge is not None:
            inputs["replies"] = Artifact(
                stage=JUDGE,
                cell=f"{row}/{setting.metric}",
                params=JudgeParams(benchmark=benchmark.name, metric=setting.metric, judge=judge, definition=benchmark),
                inputs={"completions": completions, "benchmark": asked}
                | ({"tokenizer": self.tokenizer(tokenizer)} if judge.counts_tokens else {})
                | {name: self._download(name, sources) for name, sources in judge.downloads().items()},
                objects=(_prompts(benchmark),),
                occupies=judge.slot,
            )
        params = ScoreParams(benchmark=benchmark.name, metric=setting.metric, definition=benchmark)
        cell = f"{row}/{setting.metric}"
        objects = (_prompts(benchmark), _scorers(benchmark))  # an item's gold answer comes with its prompt
        return Artifact(stage=SCORE, cell=cell, params=params, inputs=inputs, objects=objects)

    def _asked(self) -> list[tuple[Benchmark, Setting]]:
        found: list[tuple[Benchmark, Setting]] = []
        for name, metrics in self.experiment.benchmarks.items():
            benchmark = find_benchmark(name, self.experiment)
            found.extend((benchmark, benchmark.setting(metric)) for metric in metrics)
        return found

    def _column(self, benchmark: Benchmark, setting: Setting) -> TableColumn:
        return TableColumn(
            metric=setting.metric, title=setting.title, tuned_only=setting.tuned_only, benchmark=benchmark.name
        )

    def _described(self) -> tuple[str, ...]:
        of_mixtures = (part.dataset for mixture in self.experiment.mixtures for part in mixture.components)
        return self.experiment.data_table or tuple(dict.fromkeys(of_mixtures))

    def _normalize_params(self, dataset: Dataset) -> NormalizeParams:
        mode = self._splits_by(dataset).mode if dataset.splits_by_tokens else None
        return NormalizeParams(dataset=dataset.name, tokenizer_mode=mode, definition=dataset)

    def _splits_by(self, dataset: Dataset) -> PretrainedTokenizer:
        return self._data_tokenizer(f"`{dataset.name}` splits long chats by their tokens")

    def _data_tokenizer(self, reason: str) -> PretrainedTokenizer:
        if self.experiment.data_tokenizer is not None:
            return self.experiment.data_tokenizer
        if not self.experiment.models:
            raise BadInput(
                f"{reason}, and there is no tokenizer", self.experiment.name, "give the experiment a `data_tokenizer`"
            )
        return self.experiment.models[0].tokenizer

    def _download(self, cell: str, sources: Mapping[str, Source]) -> Artifact:
        made = Artifact(stage=DOWNLOAD, cell=cell, params=DownloadParams(), sources=sources)
        known = self._downloads.setdefault(cell, made)
        if known.sources != sources:
            raise BadInput(f"two sources are both called `{cell}`", self.experiment.name, "rename one")
        return known


def _data_row(dataset: Dataset) -> DataRow:
    return DataRow(
        name=dataset.name, title=dataset.title, license=dataset.license, sample=dataset.sample, paper=dataset.paper
    )


def _ref(dataset: Dataset) -> ObjectRef:
    return ObjectRef(name=f"dataset {dataset.name}", version=dataset.converter_version, module=dataset.module)


def _prompts(benchmark: Benchmark) -> ObjectRef:
    return ObjectRef(name=f"{benchmark.name} prompts", version=benchmark.prompt_version, module=benchmark.module)


def _scorers(benchmark: Benchmark) -> ObjectRef:
    return ObjectRef(name=f"{benchmark.name} scorers", version=benchmark.scorer_version, module=benchmark.module)
