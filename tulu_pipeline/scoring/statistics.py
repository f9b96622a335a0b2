"""Estimates with their uncertainty: a mean over items, its standard error and its 95 % interval.

wilson      items that are right or wrong, independent of each other
clustered   items of a group (a subject) go together: cluster-robust standard error, t interval
normal      values between 0 and 1: sample standard error, normal interval
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tulu_pipeline.errors import BadInput

Method = Literal["wilson", "clustered", "normal"]
CONFIDENCE = 0.95
# With fewer clusters the robust standard error is itself too uncertain to use (Cameron & Miller 2015, section VI).
FEWEST_CLUSTERS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean of `n` values in [0, 1].

    Attributes:
        standard_error: of the mean; None where one value does not tell.
        low, high: 95 % interval; None likewise.
        method: how the two were computed.
    """

    value: float
    n: int
    standard_error: float | None
    low: float | None
    high: float | None
    method: Method


def proportion(values: Sequence[float]) -> Estimate:
    """Share of ones, with Wilson's score interval.

    Raises:
        BadInput: no values, or a value that is neither 0 nor 1.
    """
    from scipy.stats import binomtest

    _refuse_empty(values)
    odd = next((value for value in values if value not in (0, 1)), None)
    if odd is not None:
        raise BadInput(f"{odd} is neither 0 nor 1", "proportion", "use `mean`")
    n, successes = len(values), round(math.fsum(values))
    share = successes / n
    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(
        value=share,
        n=n,
        standard_error=math.sqrt(share * (1 - share) / n),
        low=float(interval.low),
        high=float(interval.high),
        method="wilson",
    )


def mean(values: Sequence[float]) -> Estimate:
    """Mean with the sample standard error (ddof 1) and a normal interval, cut to [0, 1]."""
    from scipy.stats import norm

    _refuse_empty(values)
    value = math.fsum(values) / len(values)
    if len(values) == 1:
        return Estimate(value=value, n=1, standard_error=None, low=None, high=None, method="normal")
    variance = math.fsum((each - value) ** 2 for each in values) / (len(values) - 1)
    error = math.sqrt(variance / len(values))
    return _interval(value, len(values), error, float(norm.ppf(0.5 + CONFIDENCE / 2)), "normal")


def clustered_mean(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """Mean over all items, with a standard error robust to any dependence inside a cluster.

    The variance is the sum over clusters of the squared sum of residuals, over n squared, times G / (G - 1) for G
    clusters; the interval uses Student's t with G - 1 degrees of freedom (Cameron & Miller 2015, "A Practitioner's
    Guide to Cluster-Robust Inference").

    Raises:
        BadInput: no values, or fewer than two clusters.
    """
    from scipy.stats import t

    _refuse_empty(values)
    value = math.fsum(values) / len(values)
    residuals: dict[str, list[float]] = {}
    for each, cluster in zip(values, clusters, strict=True):
        residuals.setdefault(cluster, []).append(each - value)
    count = len(residuals)
    if count < 2:
        raise BadInput("one cluster does not show how clusters differ", "clustered_mean", "use `proportion` or `mean`")
    squares = math.fsum(math.fsum(group) ** 2 for group in residuals.values())
    error = math.sqrt(squares * count / (count - 1)) / len(values)
    return _interval(value, len(values), error, float(t.ppf(0.5 + CONFIDENCE / 2, count - 1)), "clustered")


def estimate(values: Sequence[float], clusters: Sequence[str] | None, *, proportions: bool) -> Estimate:
    """The estimate that suits the values.

    Args:
        values: one per item, in [0, 1].
        clusters: each item's cluster; None for independent items. Fewer than `FEWEST_CLUSTERS` of them count as none.
        proportions: whether an item is right or wrong, and nothing between.
    """
    if clusters is not None and len(set(clusters)) >= FEWEST_CLUSTERS:
        return clustered_mean(values, clusters)
    if proportions and all(value in (0, 1) for value in values):
        return proportion(values)
    return mean(values)


def _interval(value: float, n: int, error: float, width: float, method: Method) -> Estimate:
    low, high = max(0.0, value - width * error), min(1.0, value + width * error)
    return Estimate(value=value, n=n, standard_error=error, low=low, high=high, method=method)


def _refuse_empty(values: Sequence[float]) -> None:
    if not values:
        raise BadInput("no values to take a mean of", "statistics", "score at least one item")
