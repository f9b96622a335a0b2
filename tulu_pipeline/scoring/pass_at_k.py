"""pass@k: the chance that at least one of k samples solves a problem, estimated from n of which c do."""

from __future__ import annotations

import math
from fractions import Fraction


def pass_at_k(samples: int, correct: int, k: int) -> float | None:
    """The unbiased estimate 1 - C(n-c, k) / C(n, k) of Chen et al. (2021), section 2.1; None where n < k.

    Raises:
        ValueError: fewer than none or more than all are correct, or k below 1.
    """
    if not 0 <= correct <= samples or k < 1:
        raise ValueError(f"{correct} correct of {samples}, k = {k}")
    if samples < k:
        return None
    return float(1 - Fraction(math.comb(samples - correct, k), math.comb(samples, k)))
