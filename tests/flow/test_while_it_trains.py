"""What is recorded while it trains: one real training, killed and gone on with, told to both trackers."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.processes import kill_once, left_behind
from training_runs import PROFILE, STEPS, start_run, steps_of, train, write_arithmetic, write_tiny_model

from tulu_pipeline.tokens.shards import open_tokens
from tulu_pipeline.training.batching.data import MixtureTokens
from tulu_pipeline.training.batching.order import draw_rows
from tulu_pipeline.training.tracking.record import HeldOutRecord, read_held_out

pytestmark = pytest.mark.timeout(600)

HELD_OUT, EVERY, KILLED_AFTER = 8, 15, 33
CHANGES = {"held_out_conversations": HELD_OUT, "held_out_every_steps": EVERY, "epochs": 12.0}
LOOKS = [0, 15, 30, 45, 60]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arithmetic(tmp_path_factory.mktemp("tokens"), model)


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Both trackers without a network: W&B offline, MLflow into files."""
    uri = tmp_path_factory.mktemp("mlflow").as_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("WANDB_PROJECT", "tulu-tests")
        patch.setenv("WANDB_MODE", "offline")
        yield uri


Trained = tuple[Path, list[HeldOutRecord], dict[str, Any]]


@pytest.fixture(scope="module")
def trained(model: Path, tokens: Path, mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """(folder, the looks recorded until the kill, metrics of the resumed training)."""
    folder = tmp_path_factory.mktemp("training")
    with start_run(folder, model, tokens, PROFILE, **CHANGES) as process:
        # The state was saved after step 20: what is resumed from lies between the looks after 15 and 30.
        kill_once(process, lambda: len(steps_of(folder)) >= KILLED_AFTER, timeout_seconds=240)
    assert left_behind(folder) == []
    before = looks_of(folder)
    return folder, before, train(folder, model, tokens, PROFILE, **CHANGES)


def looks_of(folder: Path) -> list[HeldOutRecord]:
    return list(read_held_out(folder / "work" / "held_out.jsonl"))


def test_after_a_kill_the_held_out_losses_are_the_same_digit_for_digit(trained: Trained) -> None:
    folder, before, metrics = trained
    after = looks_of(folder)
    assert metrics["resumed_from_step"] == 20
    assert [look.step for look in before] == LOOKS[: len(before)]
    assert before[-1].step == 30
    assert [look.step for look in after] == LOOKS
    assert [look.loss for look in before] == [look.loss for look in after[: len(before)]]


def test_the_held_out_loss_is_that_of_plain_torch(trained: Trained, model: Path, tokens: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder, _, metrics = trained
    rows = open_tokens(tokens)
    held_out = draw_rows([len(rows)], 42, HELD_OUT)[0]
    looks = looks_of(folder)
    for checkpoint, look in ((model, looks[0]), (folder / "out", looks[-1])):
        tested = AutoModelForCausalLM.from_pretrained(checkpoint)
        total, count = 0.0, 0
        for row in held_out:
            ids, mask = rows[int(row)]
            input_ids = torch.tensor(ids.astype(np.int64))[None]
            with torch.no_grad():
                logits = tested(input_ids=input_ids).logits[0, :-1]
            learned = torch.tensor(mask[1:] != 0)
            nll = torch.nn.functional.cross_entropy(logits, input_ids[0, 1:], reduction="none")
            total, count = total + float(nll[learned].sum()), count + int(learned.sum())
        assert (look.supervised_tokens, look.conversations) == (count, HELD_OUT)
        assert look.loss == pytest.approx(total / count, rel=1e-5)
    assert metrics["held_out_loss_last"] < metrics["held_out_loss_first"]
    assert metrics["held_out_perplexity"] == pytest.approx(math.exp(looks[-1].loss))


def test_neither_ranks_nor_layout_change_the_held_out_loss(
    trained: Trained, model: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_PROJECT")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    profile = replace(PROFILE, ranks=1, layout="padded", micro_batch_conversations=3)
    train(tmp_path, model, tokens, profile, **CHANGES | {"max_steps": 1})
    first = [look.loss for look in looks_of(tmp_path)]
    assert len(first) == 2, "before the first step and after the last"
    assert first[0] == pytest.approx(looks_of(trained[0])[0].loss, rel=1e-6)


def test_what_is_held_out_is_trained_on_in_no_step(trained: Trained, tokens: Path) -> None:
    mixture = MixtureTokens([(tokens, 1)], held_out=HELD_OUT, seed=42)
    steps = steps_of(trained[0])
    per_epoch = math.ceil(len(mixture.lengths) / 6)
    assert len(mixture.lengths) == 40 - HELD_OUT
    assert sum(step.tokens for step in steps[:per_epoch]) == mixture.lengths.sum()
    assert sum(step.conversations for step in steps[:per_epoch]) == 40 - HELD_OUT


def test_every_step_says_what_it_cost(trained: Trained) -> None:
    steps = steps_of(trained[0])
    so_far = 0
    for number, step in enumerate(steps, start=1):
        so_far += step.tokens
        assert (step.step, step.tokens_so_far) == (number, so_far)
        assert step.epoch == pytest.approx(number / math.ceil((40 - HELD_OUT) / 6))
        assert step.data_seconds is not None
        assert 0 <= step.data_seconds < step.seconds
        assert step.memory_bytes is not None
        assert step.memory_bytes > 100e6
        assert step.mfu is None, "no GPU, so nothing is known of its peak"
        assert step.idle_share is not None
        assert 0 <= step.idle_share < 1
    assert steps[-1].seconds_left == 0


def test_the_record_lies_beside_the_checkpoint_with_a_summary(trained: Trained) -> None:
    folder, _, metrics = trained
    aux = folder / "out" / "aux"
    assert len((aux / "steps.jsonl").read_text().splitlines()) == STEPS
    assert len((aux / "held_out.jsonl").read_text().splitlines()) == len(LOOKS)
    told = json.loads((aux / "training.json").read_text())
    assert told == {"schema_version": 1, **metrics}
    assert (told["steps"], told["ranks"], told["held_out_conversations"]) == (STEPS, 2, HELD_OUT)
    assert told["device"]


def test_tensorboard_shows_each_step_once(trained: Trained) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(trained[0] / "out" / "aux" / "tensorboard"))
    shown.Reload()
    losses = {event.step: event.value for event in shown.Scalars("train/loss")}
    assert [event.step for event in shown.Scalars("train/loss")] == list(range(1, STEPS + 1))
    assert losses == {step.step: pytest.approx(step.loss, rel=1e-6) for step in steps_of(trained[0])}
    assert [event.step for event in shown.Scalars("held_out/loss")] == LOOKS


def test_mlflow_has_one_run_with_each_step_once(trained: Trained, mlflow_uri: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("tulu_pipeline")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("tiny+a", "FINISHED")
    assert run.data.params["recipe.held_out_conversations"] == str(HELD_OUT)
    assert run.data.tags["profile.ranks"] == "2"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in losses] == [
        (step.step, step.loss) for step in steps_of(trained[0])
    ]
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "held_out/loss")] == LOOKS


def test_wandb_has_each_step_once_in_runs_of_one_id(trained: Trained) -> None:
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    rows: dict[int, dict[str, Any]] = {}
    ids, seen = set(), []
    for file in sorted((trained[0] / "out" / "aux" / "wandb").glob("offline-run-*/*.wandb")):
        store = DataStore()
        store.open_for_scan(str(file))
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add((record.run.project, record.run.run_id, record.run.display_name))
            if record.HasField("history"):
                row = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                rows[row["_step"]] = row
                seen.append(row["_step"])
    assert ids == {("tulu-tests", "tiny+a", "tiny+a")}
    # What was under way when the process was killed never came to its disk; the record has it.
    assert len(seen) == len(set(seen))
    known = {step.step: step.loss for step in steps_of(trained[0])}
    sent = {step: row["train/loss"] for step, row in rows.items() if "train/loss" in row}
    assert sent == {step: known[step] for step in sent}
    assert set(range(KILLED_AFTER + 10, STEPS + 1)) <= set(sent)
    assert rows[60]["held_out/loss"] == looks_of(trained[0])[-1].loss


def test_no_tracker_was_in_trouble(trained: Trained) -> None:
    notes = trained[2]["notes"]
    assert not [note for note in notes if "MLflow" in note or "Weights" in note], notes
    assert not [name for name in os.listdir(trained[0] / "out" / "aux" / "wandb") if name.startswith("latest")]
