"""Liger's layers compute what the model's own do, are there only where that is so, and leave no trace."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("liger_kernel")

TESTS = Path(__file__).resolve().parents[1]


def interpreted(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(TESTS / "fused_layers.py"), *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS), "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return interpreted()


@pytest.mark.parametrize("model", ["plain", "adapters"])
def test_logits_and_gradients_are_those_of_the_models_own_layers(model: str, found: dict[str, Any]) -> None:
    assert found[model]["alone"] < 1e-5
    assert found[model]["packed"] < 3e-5
    assert found[model]["exchanged"] == 2 * (1 + 2) + 1  # of each block its feed-forward and two norms, and one norm


def test_they_go_away_without_a_trace(found: dict[str, Any]) -> None:
    assert found["plain"]["left"] == found["adapters"]["left"] == 0


def test_what_speaks_against_them_keeps_the_models_own(found: dict[str, Any]) -> None:
    assert len(found["refused"]) == 5
    assert not any(found["refused"].values())


@pytest.mark.soak  # a minute
def test_split_over_ranks_a_training_has_the_losses_of_one_without(tmp_path: Path) -> None:
    found = interpreted(str(tmp_path))
    assert found["named"] == ["liger", "torch"]
    fused, own = found["losses"]
    assert fused == pytest.approx(own, rel=1e-5)
    assert fused != own  # other kernels round otherwise
