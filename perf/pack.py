"""Packing half a million conversations, against TRL's; and what each layout makes of the machine.

Lengths are drawn from a lognormal with the mean of the Tülu mixture (394 tokens, cut at 2,048); with a mirror
(TULU_MIRROR) also from real conversations, a token counted for every four bytes. TRL packs the same lengths by best
fit decreasing in this process, once over all of them, which gives the bin count to match, and once as shipped, by
`map` batches of 1,000. TRL copies tokens where ours returns indices, so they are one byte each; its bare tree, without
any copy, is timed too. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perf.normalize import SEED, all_datasets, held
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.training.batching.order import step_order
from tulu_pipeline.training.batching.packing import best_fit_bins
from tulu_pipeline.training.batching.plans import (
    global_plan,
    global_rows,
    padded_plan,
    plan_statistics,
    rows_per_step,
    step_plan,
)

Lengths = npt.NDArray[np.int64]
LONGEST_TOKENS, MEAN_TOKENS = 2048, 394
PER_STEP = 128  # the paper's
BYTES_PER_TOKEN = 4
RANKS = (1, 4, 8, 16)


def lognormal_lengths(count: int) -> Lengths:
    """Lengths whose mean after the cut is Tülu's."""
    generator = np.random.default_rng(SEED)
    drawn = generator.lognormal(0.0, 1.0, count)
    low, high = 1.0, 10.0 * MEAN_TOKENS
    while high - low > 1e-3:
        middle = (low + high) / 2
        if np.clip(drawn * middle, 1, LONGEST_TOKENS).mean() < MEAN_TOKENS:
            low = middle
        else:
            high = middle
    return np.clip(drawn * low, 1, LONGEST_TOKENS).astype(np.int64)


def real_lengths(mirror: Path, count: int) -> Lengths:
    """Drawn with replacement from the conversations of all datasets that the mirror holds."""

    def count_tokens(texts: Any) -> list[int]:
        return [len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN + 1 for text in texts]

    files = held(mirror)
    seen = [
        sum(count_tokens(message.content for message in row.messages))
        for dataset in all_datasets()
        if dataset.name in files
        for row in convert_rows(dataset, files[dataset.name], SEED, count_tokens)
        if isinstance(row, Conversation)
    ]
    drawn = np.random.default_rng(SEED).choice(np.array(seen, dtype=np.int64), count)
    return np.clip(drawn, 1, LONGEST_TOKENS)


def seconds(work: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Median time, and what came out last."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        made = work()
        times.append(time.perf_counter() - started)
    return statistics.median(times), made


def bins_of_tree(lengths: Lengths) -> int:
    """TRL's best fit decreasing by its segment tree, without the tokens."""
    from trl.data_utils import _SegmentTree

    tree = _SegmentTree(LONGEST_TOKENS)
    tree.add(LONGEST_TOKENS)
    bins_by_space: dict[int, deque[int]] = {}
    made = 0
    for length in np.sort(lengths)[::-1].tolist():
        space = tree.search(length)
        if space == LONGEST_TOKENS:
            number = made
            made += 1
        else:
            number = bins_by_space[space].popleft()
            if not bins_by_space[space]:
                tree.remove(space)
        rest = space - length
        bins_by_space.setdefault(rest, deque()).append(number)
        if rest:
            tree.add(rest)
    return made


def measure(lengths: Lengths, repeat: int) -> dict[str, Any]:
    """Ours and TRL on the same lengths."""
    import datasets
    import pyarrow as pa
    from trl import pack_dataset

    datasets.disable_progress_bars()
    total = int(lengths.sum())
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.zeros(total, dtype=np.uint8)))
    table = datasets.Dataset(pa.table({"input_ids": ids}))

    def trl(batch_size: int) -> int:
        settings = {"batch_size": batch_size, "keep_in_memory": True, "load_from_cache_file": False}
        return len(pack_dataset(table, LONGEST_TOKENS, strategy="bfd", map_kwargs=settings))

    ours_seconds, bins = seconds(lambda: best_fit_bins(lengths, LONGEST_TOKENS), repeat)
    tree_seconds, tree_bins = seconds(lambda: bins_of_tree(lengths), 1)
    global_seconds, global_bins = seconds(lambda: trl(len(lengths)), 1)
    shipped_seconds, shipped_bins = seconds(lambda: trl(1000), 1)

    def fill(count: int) -> float:
        return round(total / (count * LONGEST_TOKENS), 5)

    return {
        "mean_tokens": round(float(lengths.mean()), 1),
        "bins": len(bins),
        "bins_equal_global_bfd": len(bins) == global_bins == tree_bins,
        "fill": fill(len(bins)),
        "ours_seconds": round(ours_seconds, 4),
        "trl_tree_seconds": round(tree_seconds, 3),
        "trl_global_seconds": round(global_seconds, 3),
        "trl_as_shipped_seconds": round(shipped_seconds, 3),
        "trl_as_shipped_fill": fill(shipped_bins),
        "ratio_vs_trl_tree": round(tree_seconds / ours_seconds, 1),
        "ratio_vs_trl_global": round(global_seconds / ours_seconds, 1),
    }


def layouts(lengths: Lengths, steps: int, budget_tokens: int, per_row: int) -> dict[str, Any]:
    """What the three layouts make of the first steps of an epoch; rows of `global` are as long as the longest."""
    positions = [step_order(len(lengths), PER_STEP, SEED, step) for step in range(steps)]
    rows = global_rows(lengths, budget_tokens=LONGEST_TOKENS, seed=SEED, epoch=0)
    per_step = rows_per_step(PER_STEP, len(lengths), len(rows), multiple_of=8)
    found: dict[str, Any] = {}
    for ranks in RANKS:
        plans = {
            "padded": [padded_plan(each, ranks=ranks, conversations_per_row=per_row) for each in positions],
            "step": [step_plan(each, lengths, ranks=ranks, budget_tokens=budget_tokens) for each in positions],
            "global": [
                global_plan(rows, lengths, step=step, rows_per_step=per_step, ranks=ranks)
                for step in range(min(steps, len(rows) // per_step))
            ],
        }
        for layout, made in plans.items():
            shares = asdict(plan_statistics(made, lengths))
            found[f"{layout}_{ranks}"] = {
                name: round(shares[name], 4) for name in ("useful_share", "busy_share", "passes_mean", "rank_imbalance")
            }
    return found


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500_000, help="conversations")
    parser.add_argument("--repeat", type=int, default=5, help="runs of ours; the median counts")
    parser.add_argument("--steps", type=int, default=200, help="steps that each layout plans")
    parser.add_argument("--budget", type=int, default=8192, help="tokens of a row of the layout `step`")
    parser.add_argument("--per-row", type=int, default=2, help="conversations of a padded micro-batch")
    options = parser.parse_args()
    lengths = lognormal_lengths(options.count)
    result = {"count": options.count} | measure(lengths, options.repeat)
    result["layouts"] = layouts(lengths, options.steps, options.budget, options.per_row)
    if mirror := os.environ.get("TULU_MIRROR"):
        real = real_lengths(Path(mirror).resolve(), options.count)
        result["real"] = measure(real, options.repeat)
        result["real_layouts"] = layouts(real, options.steps, options.budget, options.per_row)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
