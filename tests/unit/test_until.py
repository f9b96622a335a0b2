"""Where a run stops: after `mix` every component is there as it goes on, mixed or whole."""

import pytest

from flows.graph import graph_of
from flows.select import select, select_until
from tulu_pipeline.errors import NotFound
from tulu_pipeline.experiments import first_light, proprietary, quarter, table1
from tulu_pipeline.specs.experiment import Experiment


def names(experiment: Experiment, until: str) -> set[str]:
    return {artifact.name for artifact in select_until(graph_of(experiment), until)}


def test_until_mix_makes_the_components_that_nothing_is_left_out_of_too() -> None:
    graph = graph_of(first_light.EXPERIMENT)
    found = names(first_light.EXPERIMENT, "mix")
    assert {artifact.name for artifact in select(graph, "mix")} < found
    assert "normalize[code_alpaca:sample]" in found
    tokenized = [artifact.inputs["conversations"].name for artifact in graph if artifact.stage.name == "tokenize"]
    assert set(tokenized) <= found


@pytest.mark.parametrize("experiment", [quarter.EXPERIMENT, table1.EXPERIMENT], ids=lambda each: each.name)
def test_until_mix_is_the_whole_datasets_where_nothing_is_mixed(experiment: Experiment) -> None:
    assert names(experiment, "mix") == names(experiment, "normalize")


@pytest.mark.parametrize("stage", ["download", "normalize", "tokenize", "finetune", "generate", "judge", "tabulate"])
def test_any_other_stage_is_what_its_name_selects(stage: str) -> None:
    graph = graph_of(first_light.EXPERIMENT)
    assert select_until(graph, stage) == select(graph, stage)


def test_without_data_there_is_nothing_to_stop_at() -> None:
    with pytest.raises(NotFound, match="`mix`"):
        names(proprietary.EXPERIMENT, "mix")
