"""A win rate as it were if the answers were as long as the reference's: our own least version of length control.

A logistic regression of the verdicts on an intercept and tanh(d / s), where d is the difference in characters and s
its standard deviation, and its prediction at no difference. What it shares with the length-controlled win rate of
AlpacaEval 2 (Dubois et al. 2024) is the length term; that one knows how hard each instruction is, too, and is fitted
with the verdicts on two gamed models beside the model's own, so the two differ by points. Hence the name `lc_minimal`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.statistics import CONFIDENCE, Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LC_MINIMAL = "lc_minimal"
_RESAMPLES = 1_000
# Holds the coefficients where length alone tells who wins, or all verdicts are one; else it moves nothing one prints.
_RIDGE = 1e-6
_LARGEST_STEP = 2.0
_MOST_STEPS = 100


def length_controlled(wins: Sequence[float], differences: Sequence[int]) -> Estimate:
    """The win rate at equal length, with a percentile bootstrap over the items.

    Args:
        wins: 1, 0.5 or 0 for each answer.
        differences: its characters less the reference's.

    Raises:
        BadInput: no answers, or not one difference for each.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if not wins or len(wins) != len(differences):
        raise BadInput(
            f"{len(wins)} verdicts and {len(differences)} differences of length", "length control", "give one of each"
        )
    outcomes, lengths = np.array(wins, dtype=float), np.array(differences, dtype=float)
    value = float(_at_equal_length(outcomes, lengths))
    if len(wins) == 1:
        return Estimate(value=value, n=1, standard_error=None, low=None, high=None, method="bootstrap")
    drawn = bootstrap(
        (outcomes, lengths),
        lambda some, their, axis: _at_equal_length(some, their),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES // 10,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = (float(each) for each in drawn.confidence_interval)
    error = float(drawn.standard_error)
    if not math.isfinite(low + high + error):
        return Estimate(value=value, n=len(wins), standard_error=None, low=None, high=None, method="bootstrap")
    return Estimate(value=value, n=len(wins), standard_error=error, low=low, high=high, method="bootstrap")


def _at_equal_length(wins: NDArray[np.float64], differences: NDArray[np.float64]) -> Any:
    """Newton's method on the log-likelihood, for each sample along the last axis; a half win is half a case."""
    import numpy as np

    spread = differences.std(axis=-1, keepdims=True)
    x = np.tanh(np.divide(differences, spread, out=np.zeros_like(differences), where=spread > 0))
    n = wins.shape[-1]
    intercept, slope = (np.zeros((*wins.shape[:-1], 1)) for _ in range(2))
    for _ in range(_MOST_STEPS):
        chance = 1 / (1 + np.exp(-(intercept + slope * x)))
        left, weight = wins - chance, chance * (1 - chance)
        down = left.sum(axis=-1, keepdims=True) - n * _RIDGE * intercept
        along = (left * x).sum(axis=-1, keepdims=True) - n * _RIDGE * slope
        aa = weight.sum(axis=-1, keepdims=True) + n * _RIDGE
        ab = (weight * x).sum(axis=-1, keepdims=True)
        bb = (weight * x**2).sum(axis=-1, keepdims=True) + n * _RIDGE
        determinant = aa * bb - ab**2
        steps = [(bb * down - ab * along) / determinant, (aa * along - ab * down) / determinant]
        first, second = (np.clip(step, -_LARGEST_STEP, _LARGEST_STEP) for step in steps)
        intercept, slope = intercept + first, slope + second
        if max(np.abs(first).max(), np.abs(second).max()) < 1e-10:
            break
    return (1 / (1 + np.exp(-intercept)))[..., 0]
