"""The suite at a quarter: which metrics, how many items, and that one engine answers them."""

from flows.graph import every_artifact, graph_of
from tasks import STAGES
from tulu_pipeline.experiments.quarter import EXPERIMENT


def test_every_artifact_of_every_experiment_is_of_a_stage_that_a_plan_can_place() -> None:
    assert {artifact.stage.name for artifact in every_artifact()} <= {stage.name for stage in STAGES}


def test_a_quarter_of_the_items_of_eleven_metrics_is_asked_untuned_and_tuned() -> None:
    metrics = {metric for chosen in EXPERIMENT.benchmarks.values() for metric in chosen}
    assert metrics == EXPERIMENT.item_limit.keys()
    assert len(metrics) == 11
    asked = [artifact for artifact in graph_of(EXPERIMENT) if artifact.stage.name == "generate"]
    rows = {row: {a.cell.partition("/")[2] for a in asked if a.cell.startswith(f"{row}/")} for row in
            ("tiny-10m", "tiny-10m+alpaca")}  # fmt: skip
    assert rows == {"tiny-10m": metrics - {"alpaca_eval"}, "tiny-10m+alpaca": metrics}
    assert all(artifact.params.item_limit == EXPERIMENT.item_limit[artifact.params.metric] for artifact in asked)


def test_one_engine_answers_all_that_a_checkpoint_is_asked() -> None:
    engines = {
        (artifact.inputs["model"].name, artifact.params.engine, artifact.params.engine_dtype)
        for artifact in graph_of(EXPERIMENT)
        if artifact.stage.name == "generate"
    }
    assert len(engines) == 2
