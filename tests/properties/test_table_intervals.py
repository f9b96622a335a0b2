"""Intervals of a table: against independent computations, and laws they owe."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tulu_pipeline.reporting.intervals import Estimate, paired_difference, weighted_sum
from tulu_pipeline.scoring.statistics import clustered_mean

values = st.floats(0, 1, width=32)
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=60)


@given(pairs)
def test_the_paired_interval_is_that_of_the_paired_t_test(both):
    ours, theirs = np.array(both, dtype=float).T
    made = paired_difference(ours, theirs)
    differences = ours - theirs
    assert made.value == pytest.approx(differences.mean(), abs=1e-12)
    if differences.std() > 1e-9:  # scipy warns of, and we do not need, an interval of identical differences
        expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert (made.low, made.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.tuples(values, values, st.sampled_from("abcdef")), min_size=2, max_size=60))
def test_the_clustered_interval_is_that_of_the_score_stage(triples):
    ours, theirs, clusters = zip(*triples, strict=True)
    made = paired_difference(ours, theirs, clusters)
    if len(set(clusters)) < 2:
        assert made is None
        return
    expected = clustered_mean([a - b for a, b in zip(ours, theirs, strict=True)], clusters)
    half_width = stats.t.ppf(0.975, len(set(clusters)) - 1) * expected.standard_error
    assert (made.high - made.low) / 2 == pytest.approx(half_width, abs=1e-9)


@given(pairs)
def test_a_paired_difference_changes_sign_with_the_order(both):
    ours, theirs = zip(*both, strict=True)
    there, back = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low), abs=1e-12)


@given(pairs, values)
def test_items_without_a_score_are_left_out(both, value):
    ours, theirs = map(list, zip(*both, strict=True))
    with_undefined = paired_difference([*ours, math.nan, value], [*theirs, value, math.nan])
    assert with_undefined == paired_difference(ours, theirs)


def test_one_item_tells_no_interval():
    assert paired_difference([1.0], [0.0]) is None
    assert paired_difference([1.0, math.nan], [0.0, 0.0]) is None


@given(st.lists(st.tuples(values, st.floats(0.001, 0.5)), min_size=1, max_size=13))
def test_symmetric_independent_parts_combine_as_variances_do(parts):
    estimates = [Estimate(value=value, low=value - half, high=value + half) for value, half in parts]
    weights = [1 / len(parts)] * len(parts)
    total = weighted_sum(estimates, weights)
    half = math.sqrt(sum((each / len(parts)) ** 2 for _, each in parts))
    assert total.value == pytest.approx(sum(value for value, _ in parts) / len(parts))
    assert (total.low, total.high) == pytest.approx((total.value - half, total.value + half))


@given(st.lists(st.tuples(values, values, values).map(sorted), min_size=1, max_size=13))
def test_a_mean_of_columns_lies_in_its_interval_and_inside_the_extremes(triples):
    estimates = [Estimate(low=low, value=value, high=high) for low, value, high in triples]
    total = weighted_sum(estimates, [1 / len(estimates)] * len(estimates))
    mean_low = math.fsum(each.low for each in estimates) / len(estimates)
    mean_high = math.fsum(each.high for each in estimates) / len(estimates)
    assert mean_low - 1e-12 <= total.low <= total.value <= total.high <= mean_high + 1e-12
