"""A column says who judged it: numbers of different judges do not compare."""

from dataclasses import replace

import pytest

from flows.graph import graph_of
from tasks.tabulate import TabulateParams
from tulu_pipeline.benchmarks import alpaca_eval, truthfulqa
from tulu_pipeline.experiments import alpaca_replay, demo, first_light, proprietary, quarter
from tulu_pipeline.reporting.table import TableColumn
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import FalseEvaluator, Judge
from tulu_pipeline.specs.model_judge import ServedTruthJudges

PAPERS = alpaca_eval.BENCHMARK.setting("alpaca_eval")


def columns(experiment: Experiment) -> dict[str, TableColumn]:
    (params,) = (artifact.params for artifact in graph_of(experiment) if isinstance(artifact.params, TabulateParams))
    return {column.metric: column for column in params.columns}


def test_alpaca_eval_is_judged_as_in_the_paper_unless_an_experiment_says_otherwise() -> None:
    assert PAPERS.judge == alpaca_eval.GPT4_0314
    assert columns(proprietary.EXPERIMENT)["alpaca_eval"].title == "AlpacaEval"
    silent = replace(proprietary.EXPERIMENT, judges={})
    assert columns(silent)["alpaca_eval"] == columns(proprietary.EXPERIMENT)["alpaca_eval"]


@pytest.mark.parametrize(
    "experiment", [demo.EXPERIMENT, first_light.EXPERIMENT, quarter.EXPERIMENT], ids=lambda each: each.name
)
def test_a_column_of_the_false_evaluators_is_not_called_alpaca_eval(experiment: Experiment) -> None:
    assert columns(experiment)["alpaca_eval"].title == "AlpacaEval, by unique tokens"


def test_both_judges_of_one_experiment_are_told_apart() -> None:
    found = columns(alpaca_replay.EXPERIMENT)
    assert [column.title for column in found.values()] == [
        "AlpacaEval, by alpaca_eval_gpt4",
        "AlpacaEval, by unique tokens",
    ]


@pytest.mark.parametrize(
    ("judge", "title"),
    [
        (alpaca_eval.GPT4_0314, "AlpacaEval"),
        (alpaca_eval.GPT4_0613, "AlpacaEval, by alpaca_eval_gpt4_0613"),
        (alpaca_eval.annotator("m", "mine", provider="local"), "AlpacaEval, by mine"),
        (FalseEvaluator(), "AlpacaEval, by unique tokens"),
        (None, "AlpacaEval"),
    ],
)
def test_another_judge_than_the_settings_own_is_named(judge: Judge | None, title: str) -> None:
    assert PAPERS.title_by(judge) == title


def test_judges_that_are_models_are_named_too() -> None:
    setting = truthfulqa.BENCHMARK.setting("truthfulqa")
    assert setting.title_by(setting.judge) == setting.title
    served = ServedTruthJudges(truth="a", information="b")
    assert setting.title_by(served) == f"{setting.title}, by judges of openai"
