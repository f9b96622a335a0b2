"""Estimates with their uncertainty: a mean over items, its standard error and its 95 % interval.

wilson      items that are right or wrong, independent of each other
clustered   items of a group (a subject) go together: cluster-robust standard error, t interval
normal      values between 0 and 1: sample standard error, normal interval
bootstrap   values between 0 and 1 that are shares themselves (pass@k): percentile bootstrap over the items
stratified  a mean of groups' means: percentile bootstrap, each group resampled by itself
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tulu_pipeline.errors import BadInput

Method = Literal["wilson", "clustered", "normal", "bootstrap", "stratified"]
CONFIDENCE = 0.95
# With fewer clusters the robust standard error is itself too uncertain to use (Cameron & Miller 2015, section VI).
FEWEST_CLUSTERS = 10
_RESAMPLES = 2_000


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


def bootstrap_mean(values: Sequence[float]) -> Estimate:
    """Mean with a percentile bootstrap over the items, seeded; Wilson's interval where all are right or all wrong."""
    _refuse_empty(values)
    if _all_right_or_wrong(values):
        return proportion(values)
    return replace(macro_mean(values, [""] * len(values)), method="bootstrap")


def clustered_mean(values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """Mean over all items, with a standard error robust to any dependence inside a cluster.

    The interval uses Student's t with G - 1 degrees of freedom for G clusters.

    Raises:
        BadInput: no values, or fewer than two clusters.
    """
    from scipy.stats import t

    _refuse_empty(values)
    value = math.fsum(values) / len(values)
    error, count = clustered_error(values, clusters)
    return _interval(value, len(values), error, float(t.ppf(0.5 + CONFIDENCE / 2, count - 1)), "clustered")


def clustered_error(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, int]:
    """Standard error of a mean, robust to any dependence inside a cluster, and the number of clusters.

    The variance is the sum over clusters of the squared sum of residuals, over n squared, times G / (G - 1) for G
    clusters (Cameron & Miller 2015, "A Practitioner's Guide to Cluster-Robust Inference").

    Raises:
        BadInput: fewer than two clusters.
    """
    value = math.fsum(values) / len(values)
    residuals: dict[Hashable, list[float]] = {}
    for each, cluster in zip(values, clusters, strict=True):
        residuals.setdefault(cluster, []).append(each - value)
    count = len(residuals)
    if count < 2:
        raise BadInput("one cluster does not show how clusters differ", "clustered_error", "use `proportion` or `mean`")
    squares = math.fsum(math.fsum(group) ** 2 for group in residuals.values())
    return math.sqrt(squares * count / (count - 1)) / len(values), count


def macro_mean(values: Sequence[float], groups: Sequence[str]) -> Estimate:
    """Mean of the groups' means, however large they are; a percentile bootstrap that resamples within each group.

    The groups themselves are taken as given: the same tasks would be asked again. A group of one item shows no
    spread and adds none; where no group shows any, the interval is that of the items taken together.
    """
    import numpy as np
    from scipy.stats import bootstrap

    _refuse_empty(values)
    by_group: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    samples = [np.array(group) for group in by_group.values()]
    center = math.fsum(math.fsum(group) / len(group) for group in by_group.values()) / len(by_group)
    if all((sample == sample[0]).all() for sample in samples):
        return replace(estimate(values, None, proportions=True), value=center)
    found = bootstrap(
        # A second item like the first: scipy wants two, and their spread is none.
        [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in samples],
        lambda *resampled, axis: sum(each.mean(axis=axis) for each in resampled) / len(resampled),
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES // 10,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Estimate(
        value=center,
        n=len(values),
        standard_error=float(found.standard_error),
        low=float(found.confidence_interval.low),
        high=float(found.confidence_interval.high),
        method="stratified",
    )


def estimate(
    values: Sequence[float], clusters: Sequence[str] | None, *, proportions: bool, macro: bool = False
) -> Estimate:
    """The estimate that suits the values.

    Where all are right or all wrong they show no spread, and it is Wilson's, as of items without clusters.

    Args:
        values: one per item, in [0, 1].
        clusters: each item's cluster; None for independent items. Fewer than `FEWEST_CLUSTERS` of them count as none.
        proportions: whether an item is right or wrong, and nothing between.
        macro: whether the value is the mean of the clusters' means.
    """
    if macro and clusters is not None:
        return macro_mean(values, clusters)
    if _all_right_or_wrong(values):
        return proportion(values)
    if clusters is not None and len(set(clusters)) >= FEWEST_CLUSTERS:
        return clustered_mean(values, clusters)
    if proportions and all(value in (0, 1) for value in values):
        return proportion(values)
    return mean(values)


def _interval(value: float, n: int, error: float, width: float, method: Method) -> Estimate:
    low, high = max(0.0, value - width * error), min(1.0, value + width * error)
    return Estimate(value=value, n=n, standard_error=error, low=low, high=high, method=method)


def _all_right_or_wrong(values: Sequence[float]) -> bool:
    return len(set(values)) == 1 and values[0] in (0, 1)


def _refuse_empty(values: Sequence[float]) -> None:
    if not values:
        raise BadInput("no values to take a mean of", "statistics", "score at least one item")
