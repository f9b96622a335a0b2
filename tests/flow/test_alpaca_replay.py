"""Published annotations give the published numbers, offline."""

import json
from pathlib import Path

import pytest

from flows.compare import compare_rows
from flows.session import Request, prepare, run_session
from tulu_pipeline.artifacts.run import local_threads

pytestmark = pytest.mark.realdata

# win_rate, standard_error, n_total, n_draws of `alpaca_eval_gpt4_leaderboard.csv` (alpaca-eval 0.6.6)
PUBLISHED = {
    "vicuna-13b": (70.43478260869566, 1.6069688407799696, 805, 2),
    "alpaca-7b": (26.459627329192543, 1.535711469748, 805, 16),
    "text_davinci_001": (15.17412935323383, 1.235107892276849, 804, 20),
}


def test_the_win_rates_and_standard_errors_are_the_leaderboards(mirror: Path, tmp_path: Path) -> None:
    session = prepare(Request(experiment="alpaca_replay", store=str(tmp_path), only="score[*/alpaca_eval]"))
    with local_threads() as submit:
        result = run_session(session, submit)
    assert not result.failed
    for row, (win_rate, standard_error, n, draws) in PUBLISHED.items():
        made = session.plan.nodes[f"score[{row}/alpaca_eval]"].manifest
        assert made is not None
        metrics = json.loads((Path(session.store.path(made)) / "metrics.json").read_text())
        found = metrics["scorers"]["paper"]
        assert found["n"] == n
        assert metrics["flags"].get("tie") == draws
        # The same doubles but for the order of two roundings.
        assert 100 * found["value"] == pytest.approx(win_rate, rel=4e-16)
        assert 100 * found["standard_error"] == pytest.approx(standard_error, rel=1e-15)

    compared = compare_rows("vicuna-13b", "alpaca-7b", experiment="alpaca_replay", store=str(tmp_path))
    (metric,) = compared.metrics
    assert metric.result.n == 805
    assert 100 * (metric.result.first - metric.result.second) == pytest.approx(70.43478260869566 - 26.459627329192543)
    assert metric.p_holm < 0.001
    assert "vicuna-13b has not been scored" in compared.left_out["alpaca_eval_unique_tokens"]
