"""DeepSpeed's configuration from recipe and profile; TensorBoard beside the record."""

from pathlib import Path

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.batching.steps import row_budget_tokens
from tulu_pipeline.training.tracking.record import Recorder, StepRecord
from tulu_pipeline.training.tracking.tensorboard import TensorBoard
from tulu_pipeline.training.zero import deepspeed_config


def record(step: int) -> StepRecord:
    return StepRecord(
        step=step,
        loss=1.0 / step,
        learning_rate=1e-3,
        grad_norm=None if step == 1 else 0.5,
        conversations=4,
        tokens=90,
        supervised_tokens=30,
        computed_tokens=100,
        seconds=0.1,
    )


def test_tensorboard_shows_each_step_once_after_resuming(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Recorder(tmp_path, 0, [TensorBoard(tmp_path, 0)])
    for step in range(1, 6):
        first.add(record(step))
    first.close()
    resumed = Recorder(tmp_path, 3, [TensorBoard(tmp_path, 3)])
    for step in range(4, 8):
        resumed.add(record(step))
    resumed.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 8))
    assert [event.step for event in events.Scalars("train/grad_norm")] == list(range(2, 8))


def test_padding_is_what_is_computed_and_not_there() -> None:
    assert record(1).padding_share == 1 - 90 / 100


def test_the_papers_recipe_becomes_deepspeeds_configuration() -> None:
    config = deepspeed_config(Recipe(), Profile(ranks=4, zero_stage=3))
    assert config["gradient_clipping"] == 1.0
    assert config["bf16"] == {"enabled": True, "check_grad_overflow": False}
    assert config["zero_optimization"]["stage"] == 3
    assert config["optimizer"]["params"] == {
        "lr": 2e-5,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": 0.0,
        "torch_adam": True,
    }


def test_offloading_moves_parameters_only_where_they_are_split() -> None:
    two, three = (
        deepspeed_config(Recipe(), Profile(zero_stage=stage, offload=True))["zero_optimization"] for stage in (2, 3)
    )
    assert "offload_optimizer" in two
    assert "offload_param" not in two
    assert "offload_param" in three


def test_a_row_holds_what_the_profile_says_and_always_the_longest_conversation() -> None:
    recipe = Recipe(max_length_tokens=1024)
    for profile, tokens in (
        (Profile(micro_batch_conversations=4), 4096),
        (Profile(micro_batch_conversations=4, row_tokens=3000), 3000),
        (Profile(micro_batch_conversations=4, row_tokens=100), 1024),
    ):
        assert row_budget_tokens(recipe, profile) == tokens
