"""Published annotations give the published numbers, offline."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.compare import compare_rows
from flows.session import Request, prepare, run_in_threads
from tulu_pipeline.reporting.comparison import ModelComparison

pytestmark = pytest.mark.realdata

# win_rate, standard_error, n_total, n_draws of `alpaca_eval_gpt4_leaderboard.csv` (alpaca-eval 0.6.6)
PUBLISHED = {
    "vicuna-13b": (70.43478260869566, 1.6069688407799696, 805, 2),
    "alpaca-7b": (26.459627329192543, 1.535711469748, 805, 16),
    "text_davinci_001": (15.17412935323383, 1.235107892276849, 804, 20),
}


# The same file's length-controlled win rate.
PUBLISHED_LENGTH_CONTROLLED = {"vicuna-13b": 0.5000, "alpaca-7b": 0.2629, "text_davinci_001": 0.2057}

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def store(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def compared(store: str) -> ModelComparison:
    """Two models of an experiment of which one metric has been scored so far."""
    session = prepare(Request(experiment="alpaca_replay", store=store, only="score[*/alpaca_eval]"))
    assert not run_in_threads(session).failed
    return compare_rows("vicuna-13b", "alpaca-7b", experiment="alpaca_replay", store=store)


@pytest.fixture(scope="module")
def replayed(store: str, compared: ModelComparison) -> Folder:
    """The whole experiment; the folder of any of its artifacts."""
    session = prepare(Request(experiment="alpaca_replay", store=store))
    assert not run_in_threads(session).failed
    return session.folder


def metrics_of(replayed: Folder, cell: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((replayed(f"score[{cell}]") / "metrics.json").read_text())
    return found


def test_the_win_rates_and_standard_errors_are_the_leaderboards(replayed: Folder) -> None:
    for row, (win_rate, standard_error, n, draws) in PUBLISHED.items():
        metrics = metrics_of(replayed, f"{row}/alpaca_eval")
        found = metrics["scorers"]["paper"]
        assert found["n"] == n
        assert metrics["flags"].get("tie") == draws
        # The same doubles but for the order of two roundings.
        assert 100 * found["value"] == pytest.approx(win_rate, rel=4e-16)
        assert 100 * found["standard_error"] == pytest.approx(standard_error, rel=1e-15)


def test_two_models_are_compared_by_what_has_been_scored(compared: ModelComparison) -> None:
    (metric,) = compared.metrics
    assert metric.result.n == 805
    assert 100 * (metric.result.first - metric.result.second) == pytest.approx(70.43478260869566 - 26.459627329192543)
    assert metric.p_holm < 0.001
    assert "vicuna-13b has not been scored" in compared.left_out["alpaca_eval_unique_tokens"]


def test_the_win_rates_at_equal_length_are_near_the_leaderboards(replayed: Folder) -> None:
    """Not equal to them: theirs are fitted with data that ours does without."""
    for row, rate in PUBLISHED_LENGTH_CONTROLLED.items():
        found = metrics_of(replayed, f"{row}/alpaca_eval")["adjusted"]["lc_minimal"]
        assert found["value"] == pytest.approx(rate, abs=0.01)
        assert found["low"] < rate < found["high"]
        assert "adjusted" not in metrics_of(replayed, f"{row}/alpaca_eval_unique_tokens")
    table = (replayed("tabulate[alpaca_replay]") / "table.md").read_text()
    assert "## Scored as `lc_minimal`" in table
    assert "lc_minimal is this project's own win rate at equal length, a logistic regression of two parameters" in table


def test_the_sources_of_the_instructions_have_win_rates_of_their_own(replayed: Folder) -> None:
    lines = list(csv.DictReader((replayed("tabulate[alpaca_replay]") / "groups.csv").open()))
    for row, (win_rate, _, n, _) in PUBLISHED.items():
        mine = [line for line in lines if (line["row"], line["metric"]) == (row, "alpaca_eval")]
        assert {line["group"] for line in mine} == {"helpful_base", "koala", "oasst", "selfinstruct", "vicuna"}
        assert sum(int(line["n"]) for line in mine) == n
        whole = sum(int(line["n"]) * float(line["percent"]) for line in mine) / n
        assert whole == pytest.approx(win_rate, abs=1e-5)


def test_the_length_analysis_shows_both_evaluators_and_concludes_nothing_of_three_models(replayed: Folder) -> None:
    folder = replayed("tabulate[alpaca_replay]")
    found = json.loads((folder / "length.json").read_text())
    assert [model["name"] for model in found["models"]] == list(PUBLISHED)
    for model in found["models"]:
        assert 100 * model["win_rate"]["value"] == pytest.approx(PUBLISHED[model["name"]][0], rel=4e-16)
        counted = metrics_of(replayed, f"{model['name']}/alpaca_eval_unique_tokens")["scorers"]["paper"]
        assert model["false_win_rate"]["value"] == counted["value"]
        replies = (replayed(f"judge[{model['name']}/alpaca_eval_unique_tokens]") / "replies.jsonl").read_text()
        tokens = [json.loads(line)["reply"]["unique_tokens"] for line in replies.splitlines()]
        assert model["unique_tokens"] == pytest.approx(np.mean(tokens))
    x, y = ([model[side]["value"] for model in found["models"]] for side in ("win_rate", "false_win_rate"))
    (pearson,) = (each for each in found["correlations"] if (each["kind"], each["y"]) == ("pearson", "false_win_rate"))
    assert pearson["value"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson["low"] is None
    assert found["agreement"]["n"] == sum(n for _, _, n, _ in PUBLISHED.values())
    assert 0.4 < found["agreement"]["kappa"] < 0.6
    assert "3 models: fewer than 10 show no trend" in (folder / "length.md").read_text()
    assert (folder / "report" / "length.html").exists()
    assert '\\"length_page\\":\\"length.html\\"' in (folder / "report" / "data" / "table.js").read_text()
