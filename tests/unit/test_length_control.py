"""The win rate at equal length."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.length_control import length_controlled
from tulu_pipeline.scoring.metrics import aggregate
from tulu_pipeline.specs.benchmark import ItemScore


def drawn(seed: int, n: int = 300, lean: float = 1.5) -> tuple[list[float], list[int]]:
    """Verdicts that longer answers win the more often the greater `lean`."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(80, 400, n).astype(int)
    chance = 1 / (1 + np.exp(0.3 - lean * np.tanh(longer / longer.std())))
    wins = np.where(rng.random(n) < 0.05, 0.5, rng.random(n) < chance)
    return wins.tolist(), longer.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_maximum_of_the_likelihood(seed: int) -> None:
    wins, longer = drawn(seed)
    x, y = np.tanh(np.array(longer) / np.std(longer)), np.array(wins)

    def loss(parameters: np.ndarray) -> float:
        score = parameters[0] + parameters[1] * x
        return float(np.mean(np.logaddexp(0, score) - y * score))

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    # The ridge that holds hopeless cases moves the rest by some 1e-6.
    assert length_controlled(wins, longer).value == pytest.approx(1 / (1 + math.exp(-best.x[0])), abs=1e-5)


def test_it_agrees_with_scikit_learn_where_that_is_there() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    wins, longer = drawn(7)
    x = np.tanh(np.array(longer) / np.std(longer))
    model = linear.LogisticRegression(C=1e9, tol=1e-10, max_iter=1000)
    weights = np.concatenate([wins, 1 - np.array(wins)])
    model.fit(np.concatenate([x, x])[:, None], np.repeat([1, 0], len(x)), sample_weight=weights)
    assert length_controlled(wins, longer).value == pytest.approx(1 / (1 + math.exp(-model.intercept_[0])), abs=1e-5)


def test_a_judge_that_likes_length_gives_less_at_equal_length_to_longer_answers() -> None:
    wins, longer = drawn(1, lean=2.5)
    found = length_controlled(wins, longer)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.value < sum(wins) / len(wins) - 0.05


def test_the_other_side_has_the_rest() -> None:
    wins, longer = drawn(2)
    ours, theirs = length_controlled(wins, longer), length_controlled([1 - win for win in wins], [-d for d in longer])
    assert ours.value == pytest.approx(1 - theirs.value, abs=1e-12)


def test_the_unit_and_the_order_of_lengths_do_not_matter() -> None:
    wins, longer = drawn(3)
    value = length_controlled(wins, longer).value
    assert length_controlled(wins, [7 * d for d in longer]).value == pytest.approx(value, abs=1e-9)
    assert length_controlled(wins[::-1], longer[::-1]).value == pytest.approx(value, abs=1e-9)


def test_equal_lengths_leave_the_win_rate() -> None:
    wins, _ = drawn(4)
    assert length_controlled(wins, [0] * len(wins)).value == pytest.approx(sum(wins) / len(wins), abs=1e-6)


@pytest.mark.parametrize("wins", [[1.0] * 30, [0.0] * 30, [0.0] * 15 + [1.0] * 15])
def test_hopeless_cases_end_with_a_number(wins: list[float]) -> None:
    found = length_controlled(wins, list(range(-15, 15)))
    assert 0 <= found.value <= 1
    assert found.low is None or (found.high is not None and 0 <= found.low <= found.high <= 1)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(BadInput, match="0 verdicts"):
        length_controlled([], [])
    with pytest.raises(BadInput, match="2 verdicts and 1 differences"):
        length_controlled([1, 0], [3])


def scored(wins: list[float | None]) -> list[ItemScore]:
    return [
        ItemScore(item_id=str(index), group="", scores={"paper": win, "strict": win}, extracted={})
        for index, win in enumerate(wins)
    ]


def test_metrics_hold_it_for_settings_that_say_so_over_the_items_with_a_verdict() -> None:
    wins, longer = drawn(5, n=60)
    lengths = {str(index): each for index, each in enumerate([*longer, 12])}
    metrics = aggregate(scored([*wins, None]), alpaca_eval.BENCHMARK, "alpaca_eval", lengths)
    assert metrics["adjusted"]["lc_minimal"]["value"] == length_controlled(wins, longer).value
    assert metrics["adjusted"]["lc_minimal"]["n"] == 60
    other = aggregate(scored([*wins, None]), alpaca_eval.BENCHMARK, "alpaca_eval_unique_tokens", lengths)
    assert "adjusted" not in other
    assert "adjusted" not in aggregate(scored([None]), alpaca_eval.BENCHMARK, "alpaca_eval", lengths)


@pytest.mark.realdata
def test_published_annotations_come_near_the_published_length_controlled_rates(mirror: Path) -> None:
    """That one is fitted with data of its own, so the two need not be equal; each is within ours' interval."""
    published = {"vicuna-13b": 0.5000, "alpaca-7b": 0.2629, "text_davinci_001": 0.2057}
    for model, rate in published.items():
        (path,) = (mirror / "eval/alpaca_eval/results" / model).rglob("annotations.json")
        rows = [row for row in json.loads(path.read_text()) if row["preference"] is not None]
        wins = [{0: 0.5, 1: 0.0, 1.5: 0.5, 2: 1.0}[row["preference"]] for row in rows]
        found = length_controlled(wins, [len(row["output_2"]) - len(row["output_1"]) for row in rows])
        assert found.value == pytest.approx(rate, abs=0.01)
        assert found.low is not None
        assert found.high is not None
        assert found.low < rate < found.high
