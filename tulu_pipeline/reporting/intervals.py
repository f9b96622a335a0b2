"""The interval of a mean of columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def weighted_sum(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Sum of `weights` × `parts` for independent parts and non-negative weights.

    The interval follows from the parts' own, distance by distance (MOVER: Zou and Donner, Statistics in Medicine
    2008), so an asymmetric interval near 0 or 1 stays asymmetric and one at 0 of n does not shrink to a point.
    """
    value = math.fsum(weight * part.value for weight, part in zip(weights, parts, strict=True))
    below = math.fsum((weight * (part.value - part.low)) ** 2 for weight, part in zip(weights, parts, strict=True))
    above = math.fsum((weight * (part.high - part.value)) ** 2 for weight, part in zip(weights, parts, strict=True))
    return Estimate(value=value, low=value - math.sqrt(below), high=value + math.sqrt(above))
