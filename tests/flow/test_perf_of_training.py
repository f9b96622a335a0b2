"""The timed trainings of `perf/`, at a size at which their times say nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)

PERF = Path(__file__).parents[2] / "perf"
# Without a mirror: random conversations.
SMALL = ("--steps", "2", "--repeat", "1", "--per-step", "8", "--longest", "128", "--ranks", "1")


def last_line(script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints at its end, where there is neither a GPU nor a mirror."""
    environment = {name: value for name, value in os.environ.items() if name != "TULU_MIRROR"}
    done = subprocess.run(
        [sys.executable, str(PERF / script), *arguments],
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_trl_has_our_losses_on_our_conversations() -> None:
    found = last_line("train.py", *SMALL, "--cases", "step", "trl_padded")
    ours, trl = found["runs"]["step"], found["runs"]["trl_padded"]
    assert found["loss_difference"] < 1e-5
    assert ours["supervised_tokens"] == trl["supervised_tokens"] > 0
    assert ours["computed_tokens"] < trl["computed_tokens"]
    assert found["ratio_vs_trl_padded"] == pytest.approx(trl["seconds"][0] / ours["seconds"][0], rel=0.02, abs=0.01)
    assert found["ideal_ratio"] > 1
    assert found["ratio_vs_trl_packed"] is None
    assert 0 <= found["data_wait_share"] == ours["data_wait_share"] < 1
    assert trl["data_wait_share"] is None


@pytest.mark.soak
def test_all_four_trainings_are_compared() -> None:
    found = last_line("train.py", *SMALL[:-1], "2")
    assert found["loss_difference"] < 1e-5
    packed, ours = found["runs"]["trl_packed"], found["runs"]["step"]
    assert packed["computed_tokens"] == pytest.approx(ours["computed_tokens"], rel=0.5)
    assert all(found[f"ratio_vs_{peer}"] > 0 for peer in ("trl_padded", "trl_packed", "own_padded"))
    assert found["shares"]["2"]["step"]["busy"] > found["shares"]["2"]["padded"]["busy"]


@pytest.mark.soak
def test_what_resuming_costs_is_the_difference_of_two_starts() -> None:
    found = last_line("resume.py", "--steps", "2", "--repeat", "1", "--ranks", "1")
    assert set(found["seconds_beyond_fresh"]) == {"zero2", "zero3", "other_ranks"}
    for case, runs in found["runs"].items():
        [fresh], [resumed] = (runs[kind]["seconds_starting"] for kind in ("fresh", "resumed"))
        assert found["seconds_beyond_fresh"][case] == pytest.approx(resumed - fresh, abs=0.02)
        assert runs["fresh"]["seconds_resuming"] == [0]
        assert 0 < found["seconds_resuming"][case] == runs["resumed"]["seconds_resuming"][0] < resumed


def test_without_a_gpu_nothing_of_one_is_measured() -> None:
    found = last_line("gpu_train.py", "--rows", "varlen")["rows"]["varlen"]
    assert (found["kernels"]["attention"], found["kernels"]["loss"]) == ("per conversation", "whole")
    assert "not on this machine" in found["note"]
    assert {found[name] for name in ("gain", "tokens_per_second", "mfu", "memory_gib")} == {"not measured"}
    assert found["padding_share"] == 0
