"""Intervals that belong to a table: of a paired difference, and of a mean of columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def paired_difference(
    scores: Sequence[float], reference: Sequence[float], clusters: Sequence[str] | None = None
) -> Estimate | None:
    """Mean of item-wise `scores` − `reference` with its 95 % Student interval.

    Items hard for both models cancel out, so this is narrower than the two models' own intervals suggest. With
    `clusters` (each item's subject) the standard error is robust to dependence inside a cluster, as in Cameron and
    Miller, "A Practitioner's Guide to Cluster-Robust Inference", 2015; without, every item is a cluster of its own.
    Items with an undefined score (NaN) in either are left out; None where fewer than two clusters are left.
    """
    import numpy as np
    from scipy import special

    differences = np.asarray(scores, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    defined = ~np.isnan(differences)
    differences = differences[defined]
    if clusters is None:
        of_item = np.arange(len(differences))
    else:
        of_item = np.unique(np.asarray(clusters, dtype=object)[defined], return_inverse=True)[1]
    count = len(np.unique(of_item))
    if count < 2:
        return None
    mean = float(differences.mean())
    sums = np.bincount(of_item, weights=differences - mean)
    standard_error = math.sqrt(float((sums**2).sum()) * count / (count - 1)) / len(differences)
    half_width = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * standard_error
    return Estimate(value=mean, low=mean - half_width, high=mean + half_width)


def weighted_sum(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Sum of `weights` × `parts` for independent parts and non-negative weights.

    The interval follows from the parts' own, distance by distance (MOVER: Zou and Donner, Statistics in Medicine
    2008), so an asymmetric interval near 0 or 1 stays asymmetric and one at 0 of n does not shrink to a point.
    """
    value = math.fsum(weight * part.value for weight, part in zip(weights, parts, strict=True))
    below = math.fsum((weight * (part.value - part.low)) ** 2 for weight, part in zip(weights, parts, strict=True))
    above = math.fsum((weight * (part.high - part.value)) ** 2 for weight, part in zip(weights, parts, strict=True))
    return Estimate(value=value, low=value - math.sqrt(below), high=value + math.sqrt(above))
