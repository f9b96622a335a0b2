"""The paper's tables as columns of an experiment."""

import pytest

from flows.graph import graph_of
from tasks.tabulate import TabulateParams
from tulu_pipeline.models import llama
from tulu_pipeline.reporting.build import Measurement, build_table
from tulu_pipeline.reporting.table import Score, TableColumn, TableRow
from tulu_pipeline.specs.columns import ALL, TABLE_3, TABLE_8
from tulu_pipeline.specs.experiment import AverageRule, Experiment

ROW = TableRow(name="row", label="row", base_model="base")


def columns(asked, average: AverageRule = "columns") -> tuple[TableColumn, ...]:
    experiment = Experiment(
        name="t", title="t", hypothesis="", models=(llama.FAMILY.model("llama-7b"),), mixtures=(), benchmarks=asked,
        average=average,
    )  # fmt: skip
    params = list(graph_of(experiment))[-1].params
    assert isinstance(params, TabulateParams)
    assert params.average == average
    return params.columns


def test_all_thirteen_metrics_are_columns_in_the_papers_order():
    found = columns(ALL)
    assert [column.metric for column in found] == [
        "mmlu_0shot", "mmlu_5shot", "gsm_direct", "gsm_cot", "bbh_direct", "bbh_cot", "tydiqa_gp", "tydiqa_cb",
        "codex_eval_p1", "codex_eval_p10", "toxigen", "truthfulqa", "alpaca_eval",
    ]  # fmt: skip
    assert [column.metric for column in found if column.lower_is_better] == ["toxigen"]
    assert [column.metric for column in found if not column.averaged] == ["toxigen", "truthfulqa"]


@pytest.mark.parametrize(("asked", "rule"), [(TABLE_3, "columns"), (TABLE_8, "benchmarks"), (ALL, "benchmarks")])
def test_the_average_of_a_papers_table_weighs_its_six_benchmarks_alike(asked, rule):
    """One benchmark after the other is all right, the rest all wrong: the average is a sixth each time."""
    found = columns(asked, rule)
    for right in TABLE_3:
        measured = {
            ("row", column.metric): measurement(float(column.benchmark == right or not column.averaged))
            for column in found
        }
        table = build_table(title="t", rows=[ROW], columns=found, measured=measured, average_rule=rule)
        assert table.rows[0].average.views["paper"].score.value == pytest.approx(1 / 6)


def measurement(value: float) -> Measurement:
    score = Score(scorer="paper", value=value, low=value, high=value, n=10, standard_error=0.0, method="wilson")
    return Measurement(headline="paper", scores={"paper": score})
