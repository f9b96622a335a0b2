"""Two models on the same items: how far apart they are, how sure that is, and what the items could show at all.

Tables take their changes from here, and `tulu compare` its tests, so that the two never disagree.

student     independent items: Student interval of the mean difference
clustered   items of a group go together: cluster-robust standard error, t interval
stratified  a difference of two means of groups' means: percentile bootstrap, each group resampled by itself
newcombe    right and wrong that show no spread (both models wrong everywhere): the two Wilson intervals, combined

Of other scores that show no spread no interval can be told: as many alike would not make a difference certain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.statistics import CONFIDENCE, FEWEST_CLUSTERS, clustered_error, proportion

if TYPE_CHECKING:
    import numpy as np

Test = Literal["mcnemar", "permutation", "clustered permutation"]
DifferenceMethod = Literal["student", "clustered", "stratified", "newcombe"]
POWER = 0.8
_RESAMPLES = 2_000  # of an interval
_PERMUTATIONS = 9_999  # of a test: a p-value of 0.05 is then known to 0.002
_BATCH = 500
_ROUNDING = 1e-12  # what scores in [0, 1] differ by at least where it is not by rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A mean of one model minus that of another on the same items, with its 95 % interval.

    Attributes:
        value: in [-1, 1].
        low, high: of the interval.
        standard_error: of the difference; None where the items show no spread.
        clusters: how many units are independent of each other.
        method: how the interval was made.
    """

    value: float
    low: float
    high: float
    standard_error: float | None
    clusters: int
    method: DifferenceMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models on the items that both have a score for.

    Attributes:
        n: items. undefined: items left out because either has no score.
        first, second: the two means.
        difference: first minus second; None where fewer than two units are independent of each other, or no spread is
            seen among scores that are not right or wrong.
        bootstrap: 95 % percentile interval of the paired bootstrap; None for right and wrong, without a difference, and
            without spread.
        p: of the hypothesis that the two are exchangeable, two-sided. test: how it was found.
        detectable: the least true difference that such a set shows with 80 % power at 5 %; None where the items show
            no spread.
        only_first, only_second: ids of the items that one did better, in the items' order.
    """

    n: int
    undefined: int
    first: float
    second: float
    difference: Difference | None
    bootstrap: tuple[float, float] | None
    p: float
    test: Test
    detectable: float | None
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]


def paired_difference(
    scores: Sequence[float], reference: Sequence[float], groups: Sequence[str] | None = None, *, macro: bool = False
) -> Difference | None:
    """Mean of item-wise `scores` − `reference` with its 95 % interval.

    Items hard for both models cancel out, so this is narrower than the two models' own intervals suggest. With
    `groups` (each item's subject) the standard error is robust to dependence inside a group, as in Cameron and
    Miller, "A Practitioner's Guide to Cluster-Robust Inference", 2015; without, every item is a cluster of its own.
    With `macro` groups count alike, whatever their size, and are taken as given.

    Differences that are all alike have no standard error, and are not certain for that: of right and wrong the
    interval is Newcombe's, as of items without groups; of other scores there is none.

    Items with an undefined score (NaN) in either are left out; None where fewer than two clusters are left.
    """
    import numpy as np

    ours, theirs = np.asarray(scores, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    defined = ~(np.isnan(ours) | np.isnan(theirs))
    ours, theirs = ours[defined], theirs[defined]
    of_item = _numbered(groups, defined)
    if len(ours) < 2:
        return None
    if macro and groups is not None:
        return _stratified(ours, theirs, of_item)
    return _clustered(ours, theirs, of_item, "student" if groups is None else "clustered")


def compare(
    ids: Sequence[str],
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[str] | None = None,
    *,
    macro: bool = False,
    lower_is_better: bool = False,
) -> Comparison:
    """Compares two models item by item; NaN is a score that is not there.

    Right and wrong on independent items: McNemar's exact test. Everything else: the signs of the differences are
    drawn anew, of whole groups where items of a group go together, and of items inside groups of a macro mean.

    Args:
        ids: of the items.
        first: scores in [0, 1], in the order of `ids`.
        second: those of the other model.
        groups: each item's subject, task or problem, where items of one go together or `macro` counts groups alike.
            Fewer than `FEWEST_CLUSTERS` of them count as none, as in the score stage.
        macro: whether a score is the mean of the groups' means.
        lower_is_better: of two scores; decides which model did an item better.

    Raises:
        BadInput: no item has both scores.
    """
    import numpy as np

    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    defined = ~(np.isnan(ours) | np.isnan(theirs))
    if not defined.any():
        raise BadInput("no item has a score of both", "compare", "compare models that were asked the same items")
    if groups is not None and not macro and len(set(groups)) < FEWEST_CLUSTERS:
        groups = None
    difference = paired_difference(first, second, groups, macro=macro)
    kept = [each for each, there in zip(ids, defined, strict=True) if there]
    ours, theirs = ours[defined], theirs[defined]
    of_item = _numbered(groups, defined)
    weights = _weights(of_item) if macro and groups is not None else np.full(len(ours), 1 / len(ours))
    clustered = groups is not None and not macro
    independent = _right_or_wrong(ours, theirs) and groups is None
    spread = difference is not None and difference.standard_error is not None
    parts = weights * (ours - theirs)
    ahead = theirs - ours if lower_is_better else ours - theirs
    return Comparison(
        n=len(kept),
        undefined=len(ids) - len(kept),
        first=float(weights @ ours),
        second=float(weights @ theirs),
        difference=difference,
        bootstrap=_bootstrap(ours - theirs, of_item, difference) if difference and spread and not independent else None,
        p=mcnemar(ours, theirs) if independent else permutation(np.bincount(of_item, parts) if clustered else parts),
        test="mcnemar" if independent else "clustered permutation" if clustered else "permutation",
        detectable=None if difference is None else smallest_difference(difference),
        only_first=tuple(item for item, more in zip(kept, ahead > 0, strict=True) if more),
        only_second=tuple(item for item, more in zip(kept, ahead < 0, strict=True) if more),
    )


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """The exact two-sided p-value: of the items that tell two models apart, each is as likely the one's as the other's.

    Args:
        first: 1 for right and 0 for wrong, item by item.
        second: those of the other model.
    """
    from scipy.stats import binomtest

    wins, losses = int((first > second).sum()), int((first < second).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def newcombe(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """95 % hybrid score interval of the difference of two shares of right answers on the same items.

    Newcombe, "Improved Confidence Intervals for the Difference between Binomial Proportions Based on Paired Data",
    Statistics in Medicine 1998, method 10: the Wilson intervals of the two shares, combined by the correlation of the
    answers. That is corrected for continuity, and 0 where one model's answers are all alike.

    Args:
        first: 1 for right and 0 for wrong, item by item.
        second: those of the other model.
    """
    ours, theirs = proportion(first.tolist()), proportion(second.tolist())
    assert ours.low is not None, ours
    assert ours.high is not None, ours
    assert theirs.low is not None, theirs
    assert theirs.high is not None, theirs
    n, right, also_right = len(first), int(first.sum()), int(second.sum())
    both, neither = int((first * second).sum()), int(((1 - first) * (1 - second)).sum())
    together = both * neither - (right - both) * (also_right - both)
    margins = right * (n - right) * also_right * (n - also_right)
    corrected = max(together - n / 2, 0.0) if together > 0 else float(together)
    correlation = corrected / math.sqrt(margins) if margins else 0.0

    def width(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    value = ours.value - theirs.value
    low = value - width(ours.value - ours.low, theirs.high - theirs.value)
    return low, value + width(ours.high - ours.value, theirs.value - theirs.low)


def permutation(parts: np.ndarray) -> float:
    """Two-sided p-value of a sum whose parts could as well have the other sign, all of them or 9,999 draws (seeded)."""
    import numpy as np
    from scipy.stats import permutation_test

    parts = parts[parts != 0]  # their sign changes nothing
    if not len(parts):
        return 1.0
    found = permutation_test(
        (np.append(parts, 0) if len(parts) == 1 else parts,),
        lambda drawn, axis: drawn.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=_BATCH,
        rng=np.random.default_rng(0),
    )
    return float(min(1.0, found.pvalue))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values for several tests at once, so that 5 % is the chance of any false finding (Holm 1979)."""
    adjusted: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda each: p_values[each])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


def smallest_difference(difference: Difference) -> float | None:
    """The least true difference that is found with 80 % power by a two-sided test at 5 %, given its standard error.

    Bloom, "Minimum Detectable Effects", Evaluation Review 1995. None without any spread.
    """
    from scipy.stats import t

    if difference.standard_error is None:
        return None
    freedom = difference.clusters - 1
    return float((t.ppf((1 + CONFIDENCE) / 2, freedom) + t.ppf(POWER, freedom)) * difference.standard_error)


def _clustered(
    ours: np.ndarray, theirs: np.ndarray, of_item: np.ndarray, method: DifferenceMethod
) -> Difference | None:
    import numpy as np
    from scipy import special

    if len(np.unique(of_item)) < 2:
        return None
    differences = ours - theirs
    mean = float(differences.mean())
    standard_error, count = clustered_error(differences.tolist(), of_item.tolist())
    if standard_error < _ROUNDING:
        return _without_spread(ours, theirs)
    half_width = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * standard_error
    return Difference(
        value=mean,
        low=mean - half_width,
        high=mean + half_width,
        standard_error=standard_error,
        clusters=count,
        method=method,
    )


def _without_spread(ours: np.ndarray, theirs: np.ndarray) -> Difference | None:
    if not _right_or_wrong(ours, theirs):
        return None
    low, high = newcombe(ours, theirs)
    return Difference(
        value=float(ours.mean() - theirs.mean()),
        low=low,
        high=high,
        standard_error=None,
        clusters=len(ours),
        method="newcombe",
    )


def _stratified(ours: np.ndarray, theirs: np.ndarray, of_item: np.ndarray) -> Difference | None:
    import numpy as np

    differences = ours - theirs
    value = float(_weights(of_item) @ differences)
    samples = [differences[of_item == group] for group in range(int(of_item.max()) + 1)]
    if all(np.ptp(sample) < _ROUNDING for sample in samples):  # groups without spread say nothing: items are taken
        together = _clustered(ours, theirs, np.arange(len(differences)), "student")
        if together is None:
            return None
        shift = value - together.value
        return replace(together, value=value, low=together.low + shift, high=together.high + shift)
    low, high, standard_error = _resampled(samples)
    return Difference(
        value=value,
        low=low,
        high=high,
        standard_error=standard_error,
        clusters=len(differences),
        method="stratified",
    )


def _bootstrap(differences: np.ndarray, of_item: np.ndarray, difference: Difference) -> tuple[float, float]:
    """The percentile interval where whole clusters, or items, are drawn with replacement."""
    import numpy as np
    from scipy.stats import bootstrap

    if difference.method == "stratified":
        return difference.low, difference.high
    if difference.clusters == len(differences):
        low, high, _ = _resampled([differences])
        return low, high
    found = bootstrap(
        (np.bincount(of_item, differences), np.bincount(of_item)),
        lambda sums, sizes, axis: sums.sum(axis=axis) / sizes.sum(axis=axis),
        paired=True,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _right_or_wrong(ours: np.ndarray, theirs: np.ndarray) -> bool:
    import numpy as np

    return bool(np.isin(np.concatenate([ours, theirs]), (0, 1)).all())


def _resampled(samples: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Ends and standard error of the mean of the samples' means, each drawn anew from itself."""
    import numpy as np
    from scipy.stats import bootstrap

    found = bootstrap(
        # A second item like the first: scipy wants two, and their spread is none.
        [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in samples],
        lambda *drawn, axis: sum(each.mean(axis=axis) for each in drawn) / len(drawn),
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = found.confidence_interval
    return float(interval.low), float(interval.high), float(found.standard_error)


def _numbered(groups: Sequence[str] | None, defined: np.ndarray) -> np.ndarray:
    """The number of each defined item's group; without groups each item is its own."""
    import numpy as np

    if groups is None:
        return np.arange(int(defined.sum()))
    return np.unique(np.asarray(groups, dtype=object)[defined], return_inverse=True)[1]


def _weights(of_item: np.ndarray) -> np.ndarray:
    """What an item weighs where groups count alike."""
    import numpy as np

    sizes = np.bincount(of_item)
    weights: np.ndarray = 1 / (len(sizes) * sizes[of_item])
    return weights
