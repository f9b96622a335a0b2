"""What a dry run tells beforehand is what the run then does: steps, tokens, padding, and time by what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import tulu, tulu_json
from toy_experiment import write_experiment

pytestmark = pytest.mark.timeout(300)

PROFILE = """
ranks = 2
zero_stage = 2
layout = "padded"
micro_batch_conversations = 2
"""
SEVEN_BILLION = Path(__file__).parents[1] / "seven_billion.py"


@dataclass(frozen=True, slots=True)
class Told:
    """What dry runs said as a store filled: with nothing in it, with the tokens, with the checkpoint."""

    folder: Path
    at_first: dict[str, Any]
    with_tokens: dict[str, Any]
    metrics: dict[str, Any]
    again: dict[str, Any]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("dry")
    experiment = write_experiment(folder)
    (folder / "two.toml").write_text(PROFILE)
    words = ("run", experiment, "--profile", "two.toml", "--runner", "local")
    at_first = tulu_json(*words, "--dry-run", cwd=folder)
    tulu_json(*words, "--until", "tokenize", cwd=folder)
    with_tokens = tulu_json(*words, "--dry-run", cwd=folder)
    assert not list((folder / "store").glob("actions/finetune/*")), "a dry run trained"
    tulu_json(*words, "--until", "finetune", cwd=folder)
    (manifest,) = (folder / "store").glob("actions/finetune/*/*.json")
    metrics = json.loads(manifest.read_text())["metrics"]
    again = tulu_json(*words, "--dry-run", "--refresh", "finetune", cwd=folder)
    return Told(folder, at_first, with_tokens, metrics, again)


def only(told: dict[str, Any]) -> dict[str, Any]:
    (training,) = told["trainings"]
    return dict(training)


def test_without_tokens_it_says_what_makes_them_known(told: Told) -> None:
    training = only(told.at_first)
    assert training["workload"] is None
    assert training["data"].startswith("`?`: nothing is known of worms, birds before it is tokenized")
    assert training["data"].endswith("--until tokenize` makes it known")
    assert training["memory"]["weights"] == 2 * 350_688


def test_with_tokens_it_tells_what_training_then_counts(told: Told) -> None:
    work = only(told.with_tokens)["workload"]
    assert work["exact"]
    for name in ("steps", "conversations", "tokens", "supervised_tokens"):
        assert work[name] == told.metrics[name], name
    assert work["padding_share"] == pytest.approx(told.metrics["padding_share"])
    assert work["sampled_steps"] == work["steps"]


def test_time_follows_from_the_training_that_was_measured(told: Told) -> None:
    assert only(told.with_tokens)["seconds"] is None
    training = only(told.again)
    assert training["time"].startswith("measured: finetune[tiny+both]")
    assert training["seconds"] == pytest.approx(told.metrics["tokens"] / told.metrics["tokens_per_second"])
    assert told.again["totals"]["gpu_hours"] == pytest.approx(training["seconds"] * 2 / 3600)


def test_what_need_not_run_is_not_told_again(told: Told) -> None:
    done = tulu("run", "toy.py", "--profile", "two.toml", "--dry-run", cwd=told.folder)
    assert done.stdout.startswith("no finetuning would run: 1 are there")


def test_seven_billion_parameters_on_eight_gpus_are_told_from_the_config_alone(tmp_path: Path) -> None:
    found = tulu_json("run", f"{SEVEN_BILLION}:EXPERIMENT", "--dry-run", "--profile", "gpu-8", cwd=tmp_path)
    trainings = {training["name"]: training for training in found["trainings"]}
    alpaca = trainings["finetune[llama-7b+alpaca]"]
    assert alpaca["workload"]["steps"] == 814, "two epochs of 52,002 conversations, 128 a step"
    assert not alpaca["workload"]["exact"]
    assert "the paper's Table 1" in alpaca["data"]
    assert alpaca["memory"]["optimizer"] == 12 * 6_738_415_616 / 8
    assert alpaca["fits"]
    assert "assumed: 40% of 989 TFLOP/s" in alpaca["time"]
    tulu_mix = trainings["finetune[llama-7b+human_gpt_mix]"]
    # 6 FLOPs for each weight and token, at 40 % of eight times 989 TFLOP/s; attention is on top.
    least = 6 * 6.6e9 * tulu_mix["workload"]["tokens"] / (8 * 0.4 * 989.4e12)
    assert least < tulu_mix["seconds"] < 1.1 * least
    large = trainings["finetune[llama-65b+alpaca]"]
    assert not large["fits"]
    assert any("gradient_checkpointing = true" in note for note in large["notes"])
    assert found["totals"]["checkpoint_bytes"] == 4 * 2 * (6_738_415_616 + 65_285_660_672)


def test_people_get_tables_and_what_the_numbers_follow_from(tmp_path: Path) -> None:
    shown = tulu("run", f"{SEVEN_BILLION}:EXPERIMENT", "--dry-run", "--profile", "gpu-8", cwd=tmp_path, COLUMNS="160")
    assert shown.returncode == 0
    for text in ("finetune[llama-7b+alpaca]", "~814", "GPU-hours", "activations", "assumed on top", "8 finetunings:"):
        assert text in shown.stdout


def test_four_bit_weights_and_the_states_of_adapters_are_counted(tmp_path: Path) -> None:
    found = only(tulu_json("run", f"{SEVEN_BILLION}:ADAPTERS", "--dry-run", "--profile", "cpu", cwd=tmp_path))
    assert found["trained_parameters"] == 159_907_840
    base = found["memory"]["weights"] - 2 * found["trained_parameters"]
    assert base < 0.29 * 2 * found["parameters"], "embeddings and the output layer stay in bf16"
    assert found["memory"]["optimizer"] == 12 * 159_907_840 / 2


def test_contradictions_are_told_and_end_with_two(tmp_path: Path) -> None:
    done = tulu("run", f"{SEVEN_BILLION}:TOO_LONG", "--dry-run", "--profile", "gpu-8", cwd=tmp_path)
    assert done.returncode == 2
    assert "nf4 weights cannot be split" in done.stdout
    assert "write max_length_tokens=2048" in done.stdout


def test_states_that_are_saved_by_the_clock_take_the_same_disk_as_those_by_steps(tmp_path: Path) -> None:
    told = {}
    for name, saves in (("steps", (200, 0)), ("minutes", (0, 30)), ("never", (0, 0))):
        profile = tmp_path / f"{name}.toml"
        profile.write_text(f"checkpoint_every_steps = {saves[0]}\ncheckpoint_every_minutes = {saves[1]}\n")
        found = tulu_json("run", f"{SEVEN_BILLION}:ADAPTERS", "--dry-run", "--profile", str(profile), cwd=tmp_path)
        told[name] = found["totals"]["resumable_bytes"]
    assert told == {"steps": 2 * 14 * 159_907_840, "minutes": 2 * 14 * 159_907_840, "never": 0}


def test_an_experiment_without_models_says_that_nothing_is_trained(tmp_path: Path) -> None:
    done = tulu("run", "table1", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stdout.split(";")[0]) == (0, "no finetuning would run")
