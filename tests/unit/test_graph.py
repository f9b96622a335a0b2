"""The experiment as a graph: what depends on what, what is shared, what things are called."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flows import graph_data
from flows.catalog import EXPERIMENTS, find_experiment
from flows.graph import every_artifact, graph_of, versions_lock
from flows.select import select
from perf.matrix import DATASETS, METRICS
from perf.matrix import EXPERIMENT as MATRIX
from tasks.describe import DESCRIBE
from tasks.normalize import NORMALIZE
from tasks.tokenization import TOKENIZE
from tulu_pipeline.artifacts.artifact import Graph
from tulu_pipeline.artifacts.canonical import to_plain
from tulu_pipeline.errors import BadInput, NotFound
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import FalseEvaluator
from tulu_pipeline.specs.mixture import Component, Mixture
from tulu_pipeline.specs.recipe import Recipe


@pytest.fixture(scope="module")
def matrix() -> Graph:
    return graph_of(MATRIX)


def names(graph: Graph, stage: str) -> list[str]:
    return [artifact.cell for artifact in graph if artifact.stage.name == stage]


def test_every_model_is_tuned_on_every_mixture_and_asked_every_metric(matrix: Graph) -> None:
    metrics = sum(len(each) for each in METRICS.values())
    assert len(names(matrix, "finetune")) == 3 * DATASETS
    assert len(names(matrix, "score")) == 3 * DATASETS * metrics + 3 * (metrics - 1)  # untuned models: no AlpacaEval
    assert len(names(matrix, "normalize")) == DATASETS


def test_inputs_come_before_what_needs_them(matrix: Graph) -> None:
    seen: set[str] = set()
    for artifact in matrix:
        assert {source.name for source in artifact.inputs.values()} <= seen
        seen.add(artifact.name)


def test_all_benchmarks_of_a_checkpoint_are_one_unit_of_work(matrix: Graph) -> None:
    units = {artifact.unit for artifact in matrix if artifact.stage.name == "generate"}
    assert len(units) == 3 * (DATASETS + 1)


def with_mixtures(*mixtures: Mixture) -> Experiment:
    return dataclasses.replace(MATRIX, models=MATRIX.models[:1], mixtures=mixtures)


def test_a_mixture_copies_nothing_and_a_cap_makes_one_node() -> None:
    whole = Mixture(name="whole", components=(Component(dataset="dataset_0"), Component(dataset="dataset_1")))
    capped = Mixture(name="capped", components=(Component(dataset="dataset_0", cap=5), Component(dataset="dataset_1")))
    graph = graph_of(with_mixtures(whole, capped))
    assert names(graph, "mix") == ["capped/dataset_0"]
    assert sorted(names(graph, "tokenize")) == [
        "llama+capped/dataset_0",
        "llama+dataset_0",
        "llama+dataset_1",
    ]


def test_a_seed_that_draws_nothing_moves_no_key() -> None:
    def params(seed: int, cap: int | None) -> object:
        component = Component(dataset="dataset_0", cap=cap, deduplicate="exact")
        mixture = Mixture(name="pure", components=(component,), seed=seed)
        return to_plain(graph_of(with_mixtures(mixture)).by_name["mix[pure/dataset_0]"].params)

    assert params(1, None) == params(2, None)
    assert params(1, 5) != params(2, 5)


def test_another_version_of_normalize_describes_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph_of(MATRIX).by_name["describe[dataset_0]"].params
    monkeypatch.setattr(graph_data, "NORMALIZE", dataclasses.replace(NORMALIZE, version=NORMALIZE.version + 1))
    after = graph_of(MATRIX).by_name["describe[dataset_0]"].params
    assert to_plain(before) != to_plain(after)
    assert set(NORMALIZE.env) <= set(DESCRIBE.env)


def test_keys_follow_the_libraries_that_count_tokens_and_render_templates() -> None:
    assert all("tokenizers" in stage.env for stage in (NORMALIZE, DESCRIBE, TOKENIZE))
    assert all("jinja2" in stage.env for stage in (DESCRIBE, TOKENIZE))


def test_a_component_that_is_not_there_is_named_with_close_matches() -> None:
    wrong = Mixture(name="wrong", components=(Component(dataset="alpaka"),))
    with pytest.raises(NotFound, match="no dataset named `alpaka`") as caught:
        graph_of(with_mixtures(wrong))
    assert "did you mean `alpaca`" in caught.value.fix


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ("normalize", DATASETS),
        ("finetune[llama-7b+*]", DATASETS),
        ("stage=score,model=llama2-7b,metric=gsm_*", 2 * (DATASETS + 1)),
        ("dataset=dataset_1,stage=normalize", 1),
        ("+normalize[dataset_3]", 2),
    ],
)
def test_a_selection_names_a_part(matrix: Graph, selection: str, count: int) -> None:
    assert len(select(matrix, selection)) == count


def test_a_plus_behind_adds_all_that_needs_it(matrix: Graph) -> None:
    chosen = {artifact.name for artifact in select(matrix, "normalize[dataset_3]+")}
    assert "tabulate[matrix]" in chosen
    assert "finetune[llama-13b+dataset_3]" in chosen
    assert "finetune[llama-13b+dataset_4]" not in chosen


def test_a_selection_that_matches_nothing_is_an_error(matrix: Graph) -> None:
    with pytest.raises(NotFound, match="tokenise") as caught:
        select(matrix, "tokenise")
    assert "tokenize" in caught.value.fix


@pytest.mark.parametrize("name", EXPERIMENTS.names())
def test_every_experiment_compiles(name: str) -> None:
    graph = graph_of(find_experiment(name))
    assert graph.by_name[f"tabulate[{name}]"]


def test_a_users_file_holds_an_experiment() -> None:
    path = Path(__file__).parents[2] / "perf" / "matrix.py"
    assert find_experiment(f"{path}:EXPERIMENT").name == "matrix"


def test_no_code_changed_without_its_version() -> None:
    """Bump the version if bytes change; then, or where they do not, run `tulu versions --accept`."""
    lock = versions_lock()
    assert sorted({drift for artifact in every_artifact() if (drift := lock.drift(artifact))}) == []


def test_other_ways_to_tokenize_are_other_artifacts() -> None:
    mixtures = [Mixture(name=f"mix_{number}", components=(Component(dataset="dataset_0"),)) for number in range(3)]
    recipes = {
        "mix_1": Recipe(max_length_tokens=512),
        "mix_2": Recipe(max_length_tokens=512, loss_span="eos"),
    }
    graph = graph_of(dataclasses.replace(with_mixtures(*mixtures), recipes=recipes))
    for name in ("mix_0", "mix_1", "mix_2"):
        tuned = graph.by_name[f"finetune[llama-7b+{name}]"]
        recipe, tokens = tuned.params.recipe, tuned.inputs["tokens_0"].params  # type: ignore[attr-defined]
        assert (tokens.max_length_tokens, tokens.loss_span) == (recipe.max_length_tokens, recipe.loss_span)  # type: ignore[attr-defined]


def test_a_model_taught_in_its_own_template_is_asked_in_it() -> None:
    mixture = Mixture(name="own", components=(Component(dataset="dataset_0"),))
    own = dataclasses.replace(with_mixtures(mixture), recipe=dataclasses.replace(MATRIX.recipe, template="own"))
    of_stage = {
        stage: [each for each in graph_of(own) if each.stage.name == stage] for stage in ("tokenize", "generate")
    }
    assert [(each.cell, each.params.template) for each in of_stage["tokenize"]] == [("llama+dataset_0@own", "own")]  # type: ignore[attr-defined]
    asked = {(each.unit.endswith("+own]"), each.params.template) for each in of_stage["generate"]}  # type: ignore[attr-defined]
    assert asked == {(True, "own"), (False, "tulu")}


def test_a_dataset_stands_once_in_a_mixture() -> None:
    twice = (Component(dataset="dataset_0", cap=10), Component(dataset="dataset_0", cap=500))
    with pytest.raises(BadInput, match="stands 2 times"):
        Mixture(name="twice", components=twice)


def test_a_dataset_and_a_benchmark_of_one_name_do_not_share_sources() -> None:
    own = (dataclasses.replace(MATRIX.datasets[0], name="gsm"), *MATRIX.datasets[1:])
    mixture = Mixture(name="wrong", components=(Component(dataset="gsm"),))
    with pytest.raises(BadInput, match="two sources are both called `gsm`"):
        graph_of(dataclasses.replace(with_mixtures(mixture), datasets=own))


def test_the_table_is_given_what_was_said_of_each_judged_answer() -> None:
    table = list(graph_of(find_experiment("alpaca_replay")))[-1]
    judged = {name.removeprefix("replies:") for name in table.inputs if name.startswith("replies:")}
    assert judged == {name.removeprefix("score:") for name in table.inputs if name.startswith("score:")}
    assert len(judged) == 6
    for cell in judged:
        assert table.inputs[f"replies:{cell}"] is table.inputs[f"score:{cell}"].inputs["replies"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"judges": {"alpaca_evl": FalseEvaluator()}}, "it has no metric `alpaca_evl`"),
        ({"item_limit": {"gsm_cott": 3}}, "it has no metric `gsm_cott`"),
        ({"recipes": {"one": Recipe()}}, "it has no mixture `one`"),
    ],
)
def test_an_exception_for_what_is_not_there_is_an_error(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        graph_of(dataclasses.replace(find_experiment("demo"), **changes))
