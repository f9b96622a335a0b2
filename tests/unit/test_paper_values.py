"""The paper's numbers, and that our averages are the paper's averages."""

import pytest

from tulu_pipeline.reporting.build import Measurement, build_table
from tulu_pipeline.reporting.paper import PublishedScore, published_columns, published_percent
from tulu_pipeline.reporting.table import AVERAGE, Score, TableColumn, TableRow
from tulu_pipeline.reporting.text import points

TABLE_3 = {column.metric: column for column in published_columns() if column.table == 3}
TUNED = [mixture for mixture in TABLE_3["mmlu_0shot"].percent if mixture != "untuned"]


def point(percent: float) -> Measurement:
    value = percent / 100
    score = Score(scorer="paper", value=value, low=value, high=value, n=100, standard_error=0.0, method="published")
    return Measurement(headline="paper", scores={"paper": score})


def test_table_3_has_fourteen_tuned_rows():
    assert len(TUNED) == 14


@pytest.mark.parametrize("mixture", TUNED)
def test_the_recomputed_average_of_table_3_is_the_published_one(mixture):
    metrics = [metric for metric in TABLE_3 if metric != AVERAGE]
    table = build_table(
        title="Table 3",
        rows=[TableRow(name="r", label="r", base_model="llama-13b", mixture=mixture)],
        columns=[TableColumn(metric=metric, title=metric) for metric in metrics],
        measured={("r", metric): point(TABLE_3[metric].percent[mixture]) for metric in metrics},
        published=[PublishedScore(row="r", metric=AVERAGE, percent=TABLE_3[AVERAGE].percent[mixture])],
    )
    average = table.rows[0].average
    assert float(points(average.views["paper"].score.value)) == TABLE_3[AVERAGE].percent[mixture]
    assert average.published_percent == TABLE_3[AVERAGE].percent[mixture]


@pytest.mark.parametrize(
    ("published", "average"),
    [
        # The model cards of the first version, which average as Table 8 does.
        ({"mmlu": (44.5, 47.0), "gsm": (6.0, 27.0), "bbh": (38.1, 39.2), "tydiqa": (45.7, 7.7),
          "codex_eval": (17.5, 27.8), "alpaca_eval": (48.3,)}, 33.1),
        ({"mmlu": (57.7, 58.4), "gsm": (6.0, 51.0), "bbh": (45.8, 48.7), "tydiqa": (58.2, 12.3),
          "codex_eval": (25.4, 46.0), "alpaca_eval": (63.5,)}, 44.7),
    ],
    ids=["tulu-7b", "tulu-30b"],
)  # fmt: skip
def test_the_average_over_benchmarks_is_that_of_the_model_cards(published, average):
    cells = {(benchmark, index): value for benchmark, each in published.items() for index, value in enumerate(each)}
    table = build_table(
        title="Table 8",
        rows=[TableRow(name="r", label="r", base_model="tulu")],
        columns=[TableColumn(metric=f"{name}{index}", title="", benchmark=name) for name, index in cells],
        measured={("r", f"{name}{index}"): point(value) for (name, index), value in cells.items()},
        average_rule="benchmarks",
    )
    assert float(points(table.rows[0].average.views["paper"].score.value)) == average


def test_tables_3_and_7_agree_on_alpaca_eval():
    in_table_7 = next(column for column in published_columns() if (column.table, column.base_model) == (7, "llama-13b"))
    for mixture, percent in in_table_7.percent.items():
        assert TABLE_3["alpaca_eval"].percent[mixture] == percent


def test_a_published_value_is_found_by_model_mixture_and_metric():
    assert published_percent(base_model="llama-13b", mixture="cot", metric="gsm_cot") == 40.0
    assert published_percent(base_model="llama-13b", mixture="", metric="mmlu_0shot") == 42.3
    assert published_percent(base_model="gpt4", mixture="", metric="truthfulqa") == 82.3


def test_what_the_paper_does_not_print_is_none():
    assert published_percent(base_model="llama-13b", mixture="", metric="alpaca_eval") is None
    assert published_percent(base_model="llama-13b", mixture="", metric=AVERAGE) is None
    assert published_percent(base_model="llama-30b", mixture="alpaca", metric="alpaca_eval") is None
    assert published_percent(base_model="tiny", mixture="cot", metric="gsm_cot") is None
