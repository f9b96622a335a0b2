"""The suite, in full and at a quarter: which metrics, how many items, which judges, and that one engine answers all."""

from pathlib import Path

import pytest

from flows.catalog import find_benchmark
from flows.graph import every_artifact, graph_of
from flows.score import items_of
from tasks import STAGES
from tulu_pipeline.experiments import full, quarter
from tulu_pipeline.inference.passages import cutter
from tulu_pipeline.models.tiny import FAMILY, write_tokenizer
from tulu_pipeline.specs.columns import ALL, PAPER_ITEMS
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.tokens.tokenizer import load_tokenizer

SUITES = pytest.mark.parametrize("suite", [full.EXPERIMENT, quarter.EXPERIMENT], ids=lambda each: each.name)
ROW = "tiny-6k+alpaca"
_CHAT_TOKENS = 30  # the roles around a question


def test_every_artifact_of_every_experiment_is_of_a_stage_that_a_plan_can_place() -> None:
    assert {artifact.stage.name for artifact in every_artifact()} <= {stage.name for stage in STAGES}


@SUITES
def test_all_thirteen_metrics_are_asked_of_one_checkpoint_by_one_engine(suite: Experiment) -> None:
    metrics = {metric for chosen in ALL.values() for metric in chosen}
    assert len(metrics) == 13
    asked = [artifact for artifact in graph_of(suite) if artifact.stage.name == "generate"]
    assert {artifact.cell for artifact in asked} == {f"{ROW}/{metric}" for metric in metrics}
    assert {artifact.params.item_limit for artifact in asked if artifact.params.metric == "toxigen"} <= {1_750, 7_000}
    engines = {(each.inputs["model"].name, each.params.engine, each.params.engine_dtype) for each in asked}
    assert engines == {(f"finetune[{ROW}]", "vllm", "float32")}


def test_a_quarter_is_a_quarter_of_the_papers_items_rounded_up_and_nothing_else() -> None:
    whole, part = full.EXPERIMENT, quarter.EXPERIMENT
    assert all(4 * part.item_limit[metric] - whole.item_limit[metric] in range(4) for metric in whole.item_limit)
    assert part.item_limit.keys() == whole.item_limit.keys()
    for field in ("models", "mixtures", "recipe", "benchmarks", "judges", "samples"):
        assert getattr(part, field) == getattr(whole, field), field
    assert _sampling(part) == _sampling(whole) | {"alpaca_eval": 512}
    assert whole.max_new_tokens is None
    assert whole.samples is None


def _sampling(suite: Experiment) -> dict[str, int]:
    """Caps on the answers to each metric."""
    asked = [artifact.params for artifact in graph_of(suite) if artifact.stage.name == "generate"]
    return {params.metric: params.sampling.max_new_tokens for params in asked}


@SUITES
def test_judges_that_are_stood_in_for_are_told_in_the_columns_and_under_the_table(suite: Experiment) -> None:
    (table,) = (artifact for artifact in graph_of(suite) if artifact.stage.name == "tabulate")
    titles = {column.metric: column.title for column in table.params.columns}
    assert "stand-in" in titles["toxigen"]
    assert "stand-in" in titles["truthfulqa"]
    assert "unique tokens" in titles["alpaca_eval"]
    assert any("stand-ins" in note for note in table.params.notes)


@SUITES
def test_nothing_of_it_has_to_be_downloaded_but_the_data(suite: Experiment) -> None:
    hub = {artifact.name for artifact in graph_of(suite) for source in artifact.sources.values()
           if source.address().startswith("hub:")}  # fmt: skip
    assert not hub


@pytest.mark.realdata
def test_the_papers_items_are_counted_and_every_prompt_fits_the_model(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TULU_MIRROR", str(mirror))
    write_tokenizer(tmp_path / "tokenizer", vocabulary=2048, all_words=1, context_tokens=6144)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    cut = cutter(tokenizer)
    context = FAMILY.model("tiny-6k").context_tokens
    for name, metrics in full.EXPERIMENT.benchmarks.items():
        benchmark = find_benchmark(name, full.EXPERIMENT)
        items = items_of(benchmark, str(tmp_path / "store"))
        for metric in metrics:
            assert len(items[metric]) == PAPER_ITEMS[metric], metric
            # Which of two items is the longer in tokens is nearly which is the longer in bytes.
            shown = [benchmark.render(item, cut) if benchmark.render else item for item in items[metric]]
            longest = sorted(shown, key=lambda item: len(item.prompts[-1].encode()))[-20:]
            tokens = tokenizer.count_tokens([item.prompts[-1] for item in longest])
            assert max(tokens) + 512 < context, metric
            bound = int(benchmark.setting(metric).options.get("max_prompt_tokens", context))
            assert max(tokens) + _CHAT_TOKENS <= bound, metric
