"""The part of the graph that asks: a model and a benchmark to completions, replies and scores."""

from __future__ import annotations

from dataclasses import replace

from flows.catalog import find_benchmark
from flows.graph_data import DataGraph
from tasks.ask import ASK, AskParams
from tasks.execute import EXECUTE, ExecuteParams
from tasks.generate import GENERATE, generate_params
from tasks.import_completions import IMPORT, ImportParams
from tasks.judge import JUDGE, JudgeParams
from tasks.score import SCORE, ScoreParams
from tasks.tabulate import completions_input, score_input
from tulu_pipeline.artifacts.artifact import Artifact, ObjectRef
from tulu_pipeline.artifacts.source import LocalFile, Source
from tulu_pipeline.chat.options import Template
from tulu_pipeline.specs.api_model import ApiModel
from tulu_pipeline.specs.benchmark import Benchmark, Setting
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import Execution, FalseEvaluator, Judge
from tulu_pipeline.specs.model import PretrainedTokenizer
from tulu_pipeline.specs.recorded_model import RecordedModel


class AnswersGraph:
    """Builds the artifacts of answers and scores of one experiment; what is shared is one object."""

    def __init__(self, experiment: Experiment, data: DataGraph) -> None:
        self.experiment, self.data = experiment, data
        self._generated: dict[str, Artifact] = {}
        self._imported: dict[str, Artifact] = {}
        self._asked: dict[str, Artifact] = {}

    def asked(self) -> list[tuple[Benchmark, Setting]]:
        """What every model is asked, in the order of the columns."""
        found: list[tuple[Benchmark, Setting]] = []
        for name, metrics in self.experiment.benchmarks.items():
            benchmark = find_benchmark(name, self.experiment)
            found.extend((benchmark, benchmark.setting(metric)) for metric in metrics)
        return found

    def judged_twice(self) -> tuple[str, str] | None:
        """The first metric that a judge ranks and that by which the false evaluator ranks the same answers, if any."""
        ranked: dict[str, str] = {}
        counted: dict[str, str] = {}
        for _, setting in self.asked():
            judge, answers = self._judge(setting), setting.same_completions_as or setting.metric
            if judge is not None and judge.compares:
                (counted if isinstance(judge, FalseEvaluator) else ranked).setdefault(answers, setting.metric)
        return next(((ranked[answers], counted[answers]) for answers in ranked if answers in counted), None)

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
        for benchmark, setting in self.asked():
            if setting.tuned_only and not tuned:
                continue
            asked_as = benchmark.setting(setting.same_completions_as or setting.metric)
            completions = self._completions(row, checkpoint, benchmark, asked_as, tuned=tuned, template=template)
            cells[score_input(row, setting.metric)] = self._scored(row, completions, tokenizer, benchmark, setting)
            cells[completions_input(row, setting.metric)] = completions
        return cells

    def recorded(self, recorded: RecordedModel) -> dict[str, Artifact]:
        """Inputs of the table for a row whose answers are recorded, where they are."""
        cells: dict[str, Artifact] = {}
        for benchmark, setting in self.asked():
            if benchmark.name not in recorded.outputs:
                continue
            asked_as = benchmark.setting(setting.same_completions_as or setting.metric)
            completions = self._recorded(recorded, benchmark, asked_as)
            counter = self._counter(setting)
            cells[score_input(recorded.name, setting.metric)] = self._scored(
                recorded.name, completions, counter, benchmark, setting
            )
            cells[completions_input(recorded.name, setting.metric)] = completions
        return cells

    def served(self, model: ApiModel) -> dict[str, Artifact]:
        """Inputs of the table for a row that a provider's model answers."""
        cells: dict[str, Artifact] = {}
        for benchmark, setting in self.asked():
            asked_as = benchmark.setting(setting.same_completions_as or setting.metric)
            completions = self._served(model, benchmark, asked_as)
            counter = self._counter(setting)
            cells[score_input(model.name, setting.metric)] = self._scored(
                model.name, completions, counter, benchmark, setting
            )
            cells[completions_input(model.name, setting.metric)] = completions
        return cells

    def _served(self, model: ApiModel, benchmark: Benchmark, setting: Setting) -> Artifact:
        cell = f"{model.name}/{setting.metric}"
        if cell not in self._asked:
            wanted, most = setting.sampling, self.experiment
            sampling = replace(
                wanted,
                max_new_tokens=min(wanted.max_new_tokens, most.max_new_tokens or wanted.max_new_tokens),
                samples=min(wanted.samples, most.samples or wanted.samples),
                stop=(),
                stop_tuned=(),
            )
            params = AskParams(
                model=model,
                benchmark=benchmark.name,
                metric=setting.metric,
                options=setting.options,
                sampling=sampling,
                item_limit=self.experiment.item_limit.get(setting.metric),
                definition=benchmark,
            )
            inputs = {"benchmark": self.data.download(benchmark.name, benchmark.sources)}
            if benchmark.render is not None and model.tokenizer is not None:
                inputs["tokenizer"] = self.data.tokenizer(model.tokenizer)
            self._asked[cell] = Artifact(
                stage=ASK, cell=cell, params=params, inputs=inputs, objects=(_prompts(benchmark),)
            )
        return self._asked[cell]

    def _counter(self, setting: Setting) -> PretrainedTokenizer | None:
        """What counts tokens of texts that no model of the experiment wrote, where the judge counts any."""
        judge = self._judge(setting)
        if judge is None or not judge.counts_tokens:
            return None
        return self.data.counting_tokenizer(f"the judge of `{setting.metric}` counts tokens")

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
                called=_called(recorded.outputs[benchmark.name]),
                definition=benchmark,
            )
            self._imported[cell] = Artifact(
                stage=IMPORT,
                cell=cell,
                params=params,
                inputs={
                    "benchmark": self.data.download(benchmark.name, benchmark.sources),
                    "outputs": self.data.download(f"{recorded.name}-{benchmark.name}", outputs),
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
            samples=self.experiment.samples,
            template=template,
        )
        made = Artifact(
            stage=GENERATE,
            cell=f"{row}/{setting.metric}",
            group=row,
            params=params,
            inputs={"model": checkpoint, "benchmark": self.data.download(benchmark.name, benchmark.sources)},
            objects=(_prompts(benchmark),),
        )
        return self._generated.setdefault(made.cell, made)

    def _judge(self, setting: Setting) -> Judge | None:
        return self.experiment.judges.get(setting.metric, setting.judge)

    def _scored(
        self,
        row: str,
        completions: Artifact,
        tokenizer: PretrainedTokenizer | None,
        benchmark: Benchmark,
        setting: Setting,
    ) -> Artifact:
        asked = self.data.download(benchmark.name, benchmark.sources)
        inputs = {"completions": completions, "benchmark": asked}
        judge = self._judge(setting)
        if isinstance(judge, Execution):
            executed = ExecuteParams(
                benchmark=benchmark.name, metric=setting.metric, execution=judge, definition=benchmark
            )
            inputs["replies"] = Artifact(
                stage=EXECUTE,
                cell=f"{row}/{setting.metric}",
                params=executed,
                inputs={"completions": completions, "benchmark": asked},
                objects=(_prompts(benchmark),),
            )
        elif judge is not None:
            inputs["replies"] = Artifact(
                stage=JUDGE,
                cell=f"{row}/{setting.metric}",
                params=JudgeParams(benchmark=benchmark.name, metric=setting.metric, judge=judge, definition=benchmark),
                inputs={"completions": completions, "benchmark": asked}
                | ({"tokenizer": self.data.tokenizer(tokenizer)} if judge.counts_tokens and tokenizer else {})
                | {name: self.data.download(name, sources) for name, sources in judge.downloads().items()},
                objects=(_prompts(benchmark),),
                occupies=judge.slot,
            )
        params = ScoreParams(benchmark=benchmark.name, metric=setting.metric, definition=benchmark)
        cell = f"{row}/{setting.metric}"
        objects = (_prompts(benchmark), _scorers(benchmark))  # an item's gold answer comes with its prompt
        return Artifact(stage=SCORE, cell=cell, params=params, inputs=inputs, objects=objects)


def _prompts(benchmark: Benchmark) -> ObjectRef:
    return ObjectRef(name=f"{benchmark.name} prompts", version=benchmark.prompt_version, module=benchmark.module)


def _scorers(benchmark: Benchmark) -> ObjectRef:
    return ObjectRef(name=f"{benchmark.name} scorers", version=benchmark.scorer_version, module=benchmark.module)


def _called(outputs: Source) -> str:
    return outputs.path if isinstance(outputs, LocalFile) else ""
