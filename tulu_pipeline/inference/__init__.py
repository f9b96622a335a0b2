"""Generation: engines, sampling, per-item records."""
