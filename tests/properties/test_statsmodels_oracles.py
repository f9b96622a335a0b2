"""Our statistics beside those of statsmodels; where both are a formula, what is left between them is rounding."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import strategies as st
from oracle_examples import compared
from scipy.special import expit

from tulu_pipeline.scoring.length_control import length_controlled
from tulu_pipeline.scoring.paired import holm, mcnemar, paired_difference, smallest_difference
from tulu_pipeline.scoring.statistics import clustered_mean, proportion

VALUES = st.floats(0, 1, width=32)
ROUNDING = {"rel": 1e-9, "abs": 1e-12}


@pytest.fixture
def _little_garbage() -> Iterator[None]:
    """Theirs collects garbage in each call: only what is made from here on."""
    import statsmodels.stats.multitest  # noqa: F401  its own modules are none

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def regression_on_nothing(values: np.ndarray, clusters: list[str]):
    """The mean as the one coefficient of a least-squares fit.

    Its cluster-robust variance is corrected for small samples by G / (G - 1) * (n - 1) / (n - k), which for k = 1
    coefficient is ours, and its interval is that of Student's t with G - 1 degrees of freedom.
    """
    from statsmodels.api import OLS

    _, groups = np.unique(clusters, return_inverse=True)
    return OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)


@compared(pairs=st.lists(st.tuples(VALUES, st.sampled_from("abcdefghijkl")), min_size=2, max_size=60))
def test_a_clustered_mean_is_that_of_a_regression_with_clustered_errors(pairs):
    values, clusters = np.array([value for value, _ in pairs]), [cluster for _, cluster in pairs]
    if len(set(clusters)) < 2:
        return
    found, theirs = clustered_mean(values.tolist(), clusters), regression_on_nothing(values, clusters)
    ((low, high),) = theirs.conf_int()
    assert found.value == pytest.approx(theirs.params[0], **ROUNDING)
    assert found.standard_error == pytest.approx(theirs.bse[0], **ROUNDING)
    assert (found.low, found.high) == pytest.approx((max(low, 0), min(high, 1)), **ROUNDING)


@compared(triples=st.lists(st.tuples(VALUES, VALUES, st.sampled_from("abcdefghijkl")), min_size=2, max_size=60))
def test_a_clustered_difference_is_that_of_a_regression_with_clustered_errors(triples):
    ours, reference, clusters = zip(*triples, strict=True)
    found = paired_difference(ours, reference, clusters)
    if len(set(clusters)) < 2:
        assert found is None
        return
    theirs = regression_on_nothing(np.array(ours) - np.array(reference), list(clusters))
    if found is None or found.method == "newcombe":
        assert theirs.bse[0] < 2e-12
        return
    assert (found.low, found.high) == pytest.approx(theirs.conf_int()[0], **ROUNDING)
    assert found.standard_error == pytest.approx(theirs.bse[0], **ROUNDING)


@pytest.mark.usefixtures("_little_garbage")
@compared(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=13))
def test_holms_correction_is_theirs(p_values):
    from statsmodels.stats.multitest import multipletests

    found = holm({str(index): p for index, p in enumerate(p_values)})
    assert list(found.values()) == pytest.approx(multipletests(p_values, method="holm")[1], **ROUNDING)


@compared(n=st.integers(1, 2_000), share=st.floats(0, 1))
def test_wilsons_interval_is_theirs(n, share):
    from statsmodels.stats.proportion import proportion_confint

    right = round(share * n)
    found = proportion([1.0] * right + [0.0] * (n - right))
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, n, method="wilson"), **ROUNDING)


@compared(table=st.tuples(*[st.integers(0, 300)] * 4))
def test_mcnemars_exact_test_is_theirs(table):
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    both, first, second, neither = table
    ours = np.repeat([1.0, 1.0, 0.0, 0.0], table), np.repeat([1.0, 0.0, 1.0, 0.0], table)
    expected = theirs([[both, first], [second, neither]], exact=True).pvalue if first + second else 1.0
    # Theirs doubles a tail, ours counts all that is no likelier; the distribution is symmetric.
    assert mcnemar(*ours) == pytest.approx(expected, **ROUNDING)


@pytest.mark.parametrize("seed", range(12))
def test_the_rate_at_equal_length_is_that_of_their_logit(seed):
    from statsmodels.api import Logit

    draw = np.random.default_rng(seed)
    longer = draw.normal(50, 300, 400).astype(int)
    x = np.tanh(longer / longer.std())
    wins = np.where(draw.random(400) < 0.05, 0.5, draw.random(400) < expit(draw.normal() + draw.uniform(0, 2) * x))
    fitted = Logit(wins, np.column_stack([np.ones(400), x])).fit(disp=False, tol=1e-10)
    # Ours has a ridge of 1e-6 for each item, which holds hopeless cases and moves the others by a few millionths.
    assert length_controlled(wins.tolist(), longer.tolist()).value == pytest.approx(expit(fitted.params[0]), abs=1e-5)


@pytest.mark.parametrize("n", [10, 12, 27, 57, 200, 805, 14_042])
def test_the_smallest_difference_has_the_power_that_theirs_finds(n):
    """Bloom's sum of two quantiles stands for the noncentral t that they solve: to two parts in a thousand, or less."""
    from statsmodels.stats.power import TTestPower

    differences = np.random.default_rng(n).normal(0, 0.5, n)
    found = smallest_difference(paired_difference(differences, np.zeros(n)))
    effect = found / differences.std(ddof=1)
    assert TTestPower().power(effect, n, 0.05) == pytest.approx(0.8, abs=0.0015)
    assert effect == pytest.approx(float(np.squeeze(TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8))), rel=2e-3)
