"""Intervals of a table: against independent computations, and laws they owe."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.reporting.intervals import Estimate, weighted_sum

values = st.floats(0, 1, width=32)


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
