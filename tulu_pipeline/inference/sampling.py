"""Seeds: each sample of each item draws from a random stream of its own, whatever is generated beside it."""

from __future__ import annotations

import hashlib

from tulu_pipeline.specs.benchmark import Sampling


def request_seed(item_id: str, sample: int, sampling: Sampling) -> int | None:
    """The seed of one sample, below 2**32; None where nothing is drawn."""
    if sampling.temperature == 0:
        return None
    return int.from_bytes(hashlib.sha256(f"{item_id}\n{sample}".encode()).digest()[:4], "big")
