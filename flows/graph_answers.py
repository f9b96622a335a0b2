"""The part of the graph that asks: a model and a benchmark to completions, replies and scores."""

from __future__ import annotations

from collections.abc import Callable
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


def asked_as(benchmark: Benchmark, setting: Setting) -> Setting:
    """The setting whose completions a setting takes: its own, unless another asks the very same."""
    return benchmark.setting(setting.same_completions_as or setting.metric)


class AnswersGraph:
    """Builds the artifacts of answers and scores of one experiment; what is shared is one object."""

    def __init__(self, experiment: Experiment, data: DataGraph) -> None:
        self.experiment, self.data = experiment, data
        self._answers: dict[str, Artifact] = {}

    def asked(self) -> list[tuple[Benchmark, Setting]]:
        """What every model is asked, in the order of the columns."""
        found: list[tuple[Benchmark, Setting]] = []
        for name, metrics in self.experiment.benchmarks.items():
            benchmark = find_benchmark(name, self.experiment)
            found.extend((benchmark, benchmark.setting(metric)) for metric in metrics)
        return found

    def judge(self, setting: Setting) -> Judge | None:
        """Who replies to the answers of a setting: whom the experiment names, else the setting's own."""
        return self.experiment.judges.get(setting.metric, setting.judge)

    def judged_twice(self) -> tuple[str, str] | None:
        """The first metric that a judge ranks and that by which the false evaluator ranks the same answers, if any."""
        ranked: dict[str, str] = {}
        counted: dict[str, str] = {}
        for _, setting in self.asked():
            judge, answers = self.judge(setting), setting.same_completions_as or setting.metric
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
        """Inputs of the table for a row that a checkpoint answers: completions and scores for each metric."""

        def answers(benchmark: Benchmark, setting: Setting) -> Artifact | None:
            return self._generated(row, checkpoint, benchmark, setting, tuned=tuned, template=template)

        return self._cells(row, answers, tokenizer)

    def recorded(self, recorded: RecordedModel) -> dict[str, Artifact]:
        """Inputs of the table for a row whose answers are recorded, where they are."""
        return self._cells(recorded.name, lambda benchmark, setting: self._imported(recorded, benchmark, setting))

    def served(self, model: ApiModel) -> dict[str, Artifact]:
        """Inputs of the table for a row that a provider's model answers."""
        return self._cells(model.name, lambda benchmark, setting: self._served(model, benchmark, setting))

    def _cells(
        self,
        row: str,
        answers: Callable[[Benchmark, Setting], Artifact | None],
        tokenizer: PretrainedTokenizer | None = None,
    ) -> dict[str, Artifact]:
        """Completions and scores of a row, by input of the table; no `answers` leave a cell out."""
        cells: dict[str, Artifact] = {}
        for benchmark, setting in self.asked():
            made = answers(benchmark, setting)
            if made is None:
                continue
            completions = self._answers.setdefault(made.name, made)
            counter = tokenizer or self._counter(setting)
            cells[score_input(row, setting.metric)] = self._scored(row, completions, counter, benchmark, setting)
            cells[completions_input(row, setting.metric)] = completions
        return cells

    def _generated(
        self,
        row: str,
        checkpoint: Artifact,
        benchmark: Benchmark,
        setting: Setting,
        *,
        tuned: bool,
        template: Template,
    ) -> Artifact | None:
        if setting.tuned_only and not tuned:
            return None
        asked = asked_as(benchmark, setting)
        eight_bit = asked.metric in self.experiment.eight_bit_metrics
        params = generate_params(
            benchmark,
            asked.metric,
            tuned=tuned,
            engine="transformers" if eight_bit else self.experiment.engine,
            engine_dtype="float16" if eight_bit else self.experiment.engine_dtype,
            item_limit=self.experiment.item_limit.get(asked.metric),
            max_new_tokens=self.experiment.max_new_tokens,
            samples=self.experiment.samples,
            template=template,
            quantization="int8" if eight_bit else "none",
        )
        return Artifact(
            stage=GENERATE,
            cell=f"{row}/{asked.metric}",
            group=f"{row}, 8 bits" if eight_bit else row,
            params=params,
            inputs={"model": checkpoint, "benchmark": self.data.download(benchmark.name, benchmark.sources)},
            objects=(_prompts(benchmark),),
        )

    def _imported(self, recorded: RecordedModel, benchmark: Benchmark, setting: Setting) -> Artifact | None:
        if benchmark.name not in recorded.outputs:
            return None
        asked, outputs = asked_as(benchmark, setting), recorded.outputs[benchmark.name]
        params = ImportParams(
            benchmark=benchmark.name,
            metric=asked.metric,
            options=asked.options,
            item_limit=self.experiment.item_limit.get(asked.metric),
            missing_are_empty=recorded.missing_are_empty,
            called=_called(outputs),
            definition=benchmark,
        )
        return Artifact(
            stage=IMPORT,
            cell=f"{recorded.name}/{asked.metric}",
            params=params,
            inputs={
                "benchmark": self.data.download(benchmark.name, benchmark.sources),
                "outputs": self.data.download(f"{recorded.name}-{benchmark.name}", {"outputs": outputs}),
            },
            objects=(_prompts(benchmark),),
        )

    def _served(self, model: ApiModel, benchmark: Benchmark, setting: Setting) -> Artifact:
        asked = asked_as(benchmark, setting)
        capped = asked.sampling.capped(self.experiment.max_new_tokens, self.experiment.samples)
        params = AskParams(
            model=model,
            benchmark=benchmark.name,
            metric=asked.metric,
            options=asked.options,
            sampling=replace(capped, stop=(), stop_tuned=()),
            item_limit=self.experiment.item_limit.get(asked.metric),
            definition=benchmark,
        )
        inputs = {"benchmark": self.data.download(benchmark.name, benchmark.sources)}
        if benchmark.render is not None and model.tokenizer is not None:
            inputs["tokenizer"] = self.data.tokenizer(model.tokenizer)
        return Artifact(
            stage=ASK,
            cell=f"{model.name}/{asked.metric}",
            params=params,
            inputs=inputs,
            objects=(_prompts(benchmark),),
        )

    def _counter(self, setting: Setting) -> PretrainedTokenizer | None:
        """What counts tokens of texts that no model of the experiment wrote, where the judge counts any."""
        judge = self.judge(setting)
        if judge is None or not judge.counts_tokens:
            return None
        return self.data.counting_tokenizer(f"the judge of `{setting.metric}` counts tokens")

    def _scored(
        self,
        row: str,
        completions: Artifact,
        tokenizer: PretrainedTokenizer | None,
        benchmark: Benchmark,
        setting: Setting,
    ) -> Artifact:
        inputs = {
            "completions": completions,
            "benchmark": self.data.download(benchmark.name, benchmark.sources),
        }
        replies = self._replies(row, inputs, tokenizer, benchmark, setting)
        return Artifact(
            stage=SCORE,
            cell=f"{row}/{setting.metric}",
            params=ScoreParams(benchmark=benchmark.name, metric=setting.metric, definition=benchmark),
            inputs=inputs | ({"replies": replies} if replies else {}),
            objects=(_prompts(benchmark), _scorers(benchmark)),  # an item's gold answer comes with its prompt
        )

    def _replies(
        self,
        row: str,
        inputs: dict[str, Artifact],
        tokenizer: PretrainedTokenizer | None,
        benchmark: Benchmark,
        setting: Setting,
    ) -> Artifact | None:
        judge, cell, objects = self.judge(setting), f"{row}/{setting.metric}", (_prompts(benchmark),)
        if judge is None:
            return None
        if isinstance(judge, Execution):
            executed = ExecuteParams(
                benchmark=benchmark.name, metric=setting.metric, execution=judge, definition=benchmark
            )
            return Artifact(stage=EXECUTE, cell=cell, params=executed, inputs=inputs, objects=objects)
        judged = JudgeParams(benchmark=benchmark.name, metric=setting.metric, judge=judge, definition=benchmark)
        counter = {"tokenizer": self.data.tokenizer(tokenizer)} if judge.counts_tokens and tokenizer else {}
        downloads = {name: self.data.download(name, sources) for name, sources in judge.downloads().items()}
        return Artifact(
            stage=JUDGE,
            cell=cell,
            params=judged,
            inputs=inputs | counter | downloads,
            objects=objects,
            occupies=judge.slot,
        )


def _prompts(benchmark: Benchmark) -> ObjectRef:
    return ObjectRef(name=f"{benchmark.name} prompts", version=benchmark.prompt_version, module=benchmark.module)


def _scorers(benchmark: Benchmark) -> ObjectRef:
    return ObjectRef(name=f"{benchmark.name} scorers", version=benchmark.scorer_version, module=benchmark.module)


def _called(outputs: Source) -> str:
    return outputs.path if isinstance(outputs, LocalFile) else ""
