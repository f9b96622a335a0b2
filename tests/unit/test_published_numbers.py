"""A number of the paper stands beside what was made and asked as the paper did, whatever things are called."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from flows.catalog import find_benchmark, find_dataset, find_mixture, find_model, mixtures
from flows.graph import graph_of
from tasks.tabulate import TabulateParams
from tulu_pipeline.benchmarks import alpaca_eval, tydiqa
from tulu_pipeline.models.llama import FAMILY as LLAMA
from tulu_pipeline.models.tiny import FAMILY as TINY
from tulu_pipeline.models.tulu import FAMILY as TULU
from tulu_pipeline.reporting.build import build_table
from tulu_pipeline.reporting.paper import published_columns, published_percent
from tulu_pipeline.reporting.table import AVERAGE
from tulu_pipeline.specs.columns import PAPER_ITEMS, TABLE_3, TABLE_6, TABLE_8
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import FalseEvaluator
from tulu_pipeline.specs.mixture import Component, Mixture, single
from tulu_pipeline.specs.recipe import Lora, Recipe

METRICS = [metric for metrics in TABLE_3.values() for metric in metrics]
EVERY = {*METRICS, AVERAGE}
HUMAN = find_mixture("human_mix")
TUNED = "llama-13b+human_mix"
AS_PRINTED = Experiment(
    name="table3",
    title="Table 3, a row",
    hypothesis="the paper's row",
    models=(LLAMA.model("llama-13b"),),
    mixtures=(HUMAN,),
    benchmarks=TABLE_3,
)
# The paper's names for a model that is not the paper's.
TINY_CALLED_LLAMA = replace(TINY.model("tiny-6k"), name="llama-13b")
TWO_ROWS = Mixture(name="human_mix", components=(Component(dataset="dolly", cap=2),))


def table_params(experiment: Experiment) -> TabulateParams:
    (params,) = (artifact.params for artifact in graph_of(experiment) if isinstance(artifact.params, TabulateParams))
    return params


def published(experiment: Experiment, row: str = TUNED) -> dict[str, float]:
    return {each.metric: each.percent for each in table_params(experiment).published if each.row == row}


def test_what_is_made_and_asked_as_in_the_paper_has_every_number_of_its_row_beside_it() -> None:
    found = published(AS_PRINTED)
    assert found == {
        metric: published_percent(base_model="llama-13b", mixture="human_mix", metric=metric) for metric in EVERY
    }
    assert (found["gsm_cot"], found[AVERAGE]) == (38.5, 39.2)
    assert set(published(AS_PRINTED, "llama-13b")) == {*METRICS} - {"alpaca_eval"}


def test_the_table_shows_the_numbers_that_the_graph_found_and_no_other() -> None:
    params = table_params(AS_PRINTED)
    measured = {(row.name, column.metric): None for row in params.rows for column in params.columns}
    shown = build_table(
        title="", rows=params.rows, columns=params.columns, measured=measured, published=params.published
    )
    (_, tuned) = shown.rows
    assert {cell.metric: cell.published_percent for cell in tuned.all_cells()} == published(AS_PRINTED)
    bare = build_table(title="", rows=params.rows, columns=params.columns, measured=measured)
    assert {cell.published_percent for row in bare.rows for cell in row.all_cells()} == {None}


def test_the_papers_names_alone_bring_no_number_of_the_paper() -> None:
    named = replace(
        AS_PRINTED,
        models=(TINY_CALLED_LLAMA,),
        mixtures=(TWO_ROWS,),
        benchmarks={"gsm": ("gsm_cot",)},
        item_limit={"gsm_cot": 4},
        max_new_tokens=8,
    )
    assert table_params(named).published == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda own: replace(own, models=(TINY_CALLED_LLAMA,)),
        lambda own: replace(own, mixtures=(TWO_ROWS,)),
        lambda own: replace(own, mixtures=(replace(HUMAN, components=HUMAN.components[::-1]),)),
        lambda own: replace(own, datasets=(replace(find_dataset("oasst1:sample"), name="oasst1"),)),
        lambda own: replace(own, recipe=Recipe(max_steps=2)),
        lambda own: replace(own, recipes={"human_mix": Recipe(lora=Lora())}),
    ],
    ids=["model", "mixture", "order", "dataset", "steps", "adapters"],
)
def test_another_model_has_none_of_the_papers_numbers(change: Callable[[Experiment], Experiment]) -> None:
    assert published(change(AS_PRINTED)) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda own: own,
        lambda own: replace(own, item_limit={metric: PAPER_ITEMS[metric] for metric in METRICS}),
        lambda own: replace(own, max_new_tokens=8192, samples=20),
        lambda own: replace(own, mixtures=(replace(HUMAN, label="people"),)),
        lambda own: replace(own, recipe=Recipe(seed=1, special_in_text="hf", held_out_every_steps=7)),
        lambda own: replace(own, datasets=(find_dataset("oasst1"),), own_benchmarks=(find_benchmark("gsm"),)),
        lambda own: replace(own, benchmarks=TABLE_3 | TABLE_6),
        lambda own: replace(own, average="benchmarks"),
    ],
    ids=["as printed", "all items", "no lower cap", "label", "seed", "same values", "safety", "average"],
)
def test_what_changes_nothing_keeps_the_papers_numbers(change: Callable[[Experiment], Experiment]) -> None:
    assert published(change(AS_PRINTED)).keys() >= EVERY


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda own: replace(own, item_limit={"gsm_cot": 199}), {"gsm_cot"}),
        (lambda own: replace(own, samples=1), {"codex_eval_p10"}),
        (lambda own: replace(own, max_new_tokens=8), {*METRICS} - {"mmlu_0shot"}),
        (lambda own: replace(own, judges={"alpaca_eval": FalseEvaluator()}), {"alpaca_eval"}),
        (lambda own: replace(own, judges={"alpaca_eval": alpaca_eval.GPT4_0613}), {"alpaca_eval"}),
        (lambda own: replace(own, own_benchmarks=(tydiqa.reduced(demos="dev"),)), {"tydiqa_gp"}),
    ],
    ids=["items", "samples", "cap", "false evaluator", "judge", "benchmark"],
)
def test_a_column_that_is_asked_otherwise_loses_its_number_and_the_average_with_it(
    change: Callable[[Experiment], Experiment], lost: set[str]
) -> None:
    assert published(change(AS_PRINTED)).keys() == EVERY - lost - {AVERAGE}


@pytest.mark.parametrize(
    "change",
    [
        lambda own: replace(own, benchmarks={"gsm": ("gsm_cot",)}),
        lambda own: replace(own, benchmarks=TABLE_8, average="benchmarks"),
        lambda own: replace(own, average="none"),
    ],
    ids=["one column", "Table 8", "none"],
)
def test_an_average_of_other_columns_has_no_number_of_the_paper(change: Callable[[Experiment], Experiment]) -> None:
    found = published(change(AS_PRINTED))
    assert "gsm_cot" in found
    assert AVERAGE not in found


def test_a_released_checkpoint_has_the_papers_numbers_if_its_base_is_the_papers() -> None:
    release = next(each for each in TULU.releases if (each.base.name, each.mixture) == ("llama-13b", "human_gpt_mix"))
    tuned = release.at("0" * 40)
    experiment = replace(AS_PRINTED, models=(), mixtures=(), tuned_models=(tuned,))
    assert published(experiment, tuned.name).keys() == EVERY
    other = replace(experiment, tuned_models=(replace(tuned, base=TINY_CALLED_LLAMA),))
    assert published(other, tuned.name) == {}


def test_whatever_the_paper_prints_for_a_base_model_is_of_a_model_and_a_mixture_of_the_project() -> None:
    known = {each.name for each in mixtures()}
    for column in published_columns():
        if column.base_model:
            assert LLAMA.model(column.base_model) == find_model(column.base_model)
            for mixture in column.percent.keys() - known - {"untuned"}:
                assert single(find_dataset(mixture).name).name == mixture
