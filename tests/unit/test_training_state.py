from dataclasses import replace
from pathlib import Path

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.record import Recorder, StepRecord, read_steps
from tulu_pipeline.training.state import commit_state, newest_state, state_folder, state_identity, unfinished_folder
from tulu_pipeline.training.steps import row_budget_tokens
from tulu_pipeline.training.zero import deepspeed_config

HERE = state_identity(ranks=2, zero_stage=2)


def write_state(work: Path, step: int, *, commit: bool = True) -> None:
    folder = unfinished_folder(work, step) / "deepspeed"
    folder.mkdir(parents=True)
    (folder / "weights.pt").write_bytes(b"x" * 100)
    if commit:
        commit_state(work, step, HERE)


def test_where_nothing_is_saved_training_starts_anew(tmp_path: Path) -> None:
    assert newest_state(tmp_path, HERE) == (0, "")


def test_the_newest_state_is_kept_alone(tmp_path: Path) -> None:
    write_state(tmp_path, 10)
    write_state(tmp_path, 20)
    assert newest_state(tmp_path, HERE) == (20, "")
    assert (state_folder(tmp_path, 20) / "deepspeed" / "weights.pt").exists()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["latest", "step-20"]


def test_half_a_state_is_never_seen(tmp_path: Path) -> None:
    write_state(tmp_path, 10)
    write_state(tmp_path, 20, commit=False)
    assert newest_state(tmp_path, HERE) == (10, "")
    unfinished_folder(tmp_path, 20).rename(state_folder(tmp_path, 20))  # killed before `latest` was written
    assert newest_state(tmp_path, HERE) == (10, "")


def test_state_of_other_ranks_stages_or_releases_is_left_alone_and_the_reason_given(tmp_path: Path) -> None:
    write_state(tmp_path, 10)
    for other, said in (
        (replace(HERE, ranks=4), "ranks 2 instead of 4"),
        (replace(HERE, zero_stage=3), "zero_stage 2 instead of 3"),
        (replace(HERE, deepspeed="1.0"), "deepspeed"),
    ):
        step, why = newest_state(tmp_path, other)
        assert step == 0
        assert said in why


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


def test_a_resumed_record_drops_what_was_ahead_of_the_state_and_a_cut_line(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 0)
    for step in range(1, 6):
        recorder.add(record(step))
    assert [kept.step for kept in read_steps(tmp_path / "steps.jsonl")] == [1, 2, 3, 4, 5], "written as it goes"
    recorder.close()
    with (tmp_path / "steps.jsonl").open("a") as lines:
        lines.write('{"step": 6, "lo')
    resumed = Recorder(tmp_path, 3)
    resumed.add(record(4))
    resumed.close()
    assert list(read_steps(tmp_path / "steps.jsonl")) == [record(step) for step in range(1, 5)]


def test_tensorboard_shows_each_step_once_after_resuming(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Recorder(tmp_path, 0)
    for step in range(1, 6):
        first.add(record(step))
    first.close()
    resumed = Recorder(tmp_path, 3)
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
    assert config["bf16"] == {"enabled": True}
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
