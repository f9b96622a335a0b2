"""Killed, asked to stop, moved to other ranks or left without disk, a training goes on as if nothing had been."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes.kill_points import changes_of, import_once, killed_at
from fakes.processes import left_behind
from spawned_ranks import make_job, run_jobs
from training_runs import (
    PROFILE,
    STEPS,
    losses_of,
    rank_pid,
    start_run,
    states_of,
    steps_of,
    train,
    without_compiler,
    write_arithmetic,
    write_tiny_model,
)

from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.profile import Profile
from tulu_pipeline.training.saving.state import newest_state, state_identity
from tulu_pipeline.training.tracking.record import read_held_out, read_steps

pytestmark = pytest.mark.timeout(600)

# Found here because PATH leads nowhere while the trainings run.
MOUNT, SLEEP, COPY, SHELL, UNSHARE = (shutil.which(name) or "" for name in ("mount", "sleep", "cp", "sh", "unshare"))
SMALL_DISK = (UNSHARE, "--user", "--map-root-user", "--mount")

ONE_RANK = state_identity(1, 2)

Kill = Callable[["subprocess.Popen[str]", Path], None]


@pytest.fixture(scope="module", autouse=True)
def machine_without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with without_compiler(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arithmetic(tmp_path_factory.mktemp("tokens"), model)


def run_until(process: "subprocess.Popen[str]", folder: Path, steps: int, record_before: int = 0) -> None:
    """Until so many steps are recorded in another file than before; it must still be running then."""
    deadline = time.monotonic() + 300
    while record_of(folder) == record_before or len(steps_of(folder)) < steps:
        assert process.poll() is None, (folder / "output").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def record_of(folder: Path) -> int:
    """The file of the record, which is written anew at each start; 0 where there is none."""
    path = folder / "work" / "steps.jsonl"
    return path.stat().st_ino if path.exists() else 0


def kill_run(process: "subprocess.Popen[str]", folder: Path) -> None:
    """The machine goes, as far as the run knows."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def kill_a_rank(process: "subprocess.Popen[str]", folder: Path) -> None:
    """As the kernel does when memory is short; the run says which and how, well before any timeout."""
    os.kill(rank_pid(folder, 1), signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(60) == 1
    assert time.monotonic() - killed < 30
    assert "rank 1 was killed by signal 9 (SIGKILL), often the machine's memory was full" in output(folder)


def ask_to_stop(process: "subprocess.Popen[str]", folder: Path) -> None:
    """SIGTERM: what is done is saved before it ends, to the very step."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    last = steps_of(folder)[-1].step
    assert f"interrupted after step {last}; the same command goes on" in output(folder)
    assert states_of(folder)[-1] == f"step-{last}"
    assert not list((folder / "work").glob("stop-*"))


def output(folder: Path) -> str:
    return (folder / "output").read_text()


def goes_on_after(
    kills: Sequence[tuple[Kill, int, Profile]], folder: Path, model: Path, tokens: Path
) -> tuple[list[tuple[int, int]], Path]:
    """A training killed once for each (how, not before this step, profile), then carried to its end.

    What is recorded before a kill must be recorded again, digit for digit, by whoever goes on.

    Returns:
        (for each start but the first: the step it went on from, steps that it did once more), the folder.
    """
    seen: list[tuple[float, float | None]] = []
    repeated = []
    for kill, steps, profile in kills:
        record = record_of(folder)
        with start_run(folder, model, tokens, profile) as process:
            run_until(process, folder, steps, record)
            kill(process, folder)
        assert left_behind(folder) == []
        found = losses_of(folder)
        common = min(len(found), len(seen))
        assert found[:common] == seen[:common]
        seen = max(seen, found, key=len)
        repeated.append((int(states_of(folder)[-1].split("-")[1]) if states_of(folder) else 0, len(seen)))
    metrics = train(folder, model, tokens, kills[-1][2])
    assert metrics["resumed_from_step"] == repeated[-1][0]
    assert losses_of(folder)[: len(seen)] == seen
    assert [step.step for step in steps_of(folder)] == list(range(1, STEPS + 1))
    return [(state, reached - state) for state, reached in repeated], folder


@pytest.fixture(scope="module")
def zero2(model: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[int, int]], Path]:
    """Three kills. States come seldom at first, so that much is done twice."""
    seldom, often = (replace(PROFILE, checkpoint_every_steps=steps, checkpoints_kept=2) for steps in (25, 7))
    kills = [(kill_run, 45, seldom), (kill_a_rank, 30, often), (kill_run, 40, often)]
    return goes_on_after(kills, tmp_path_factory.mktemp("zero2"), model, tokens)


@pytest.fixture(scope="module")
def zero3(model: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[tuple[int, int]], Path]:
    """A kill, long after the last state, and a polite stop, where states come by the clock, which is fast."""
    seldom = replace(PROFILE, zero_stage=3, checkpoint_every_steps=25, checkpoints_kept=2)
    by_the_clock = replace(seldom, checkpoint_every_steps=0, checkpoint_every_minutes=0.1 / 60)
    return goes_on_after(
        [(kill_run, 40, seldom), (ask_to_stop, 45, by_the_clock)],
        tmp_path_factory.mktemp("zero3"),
        model,
        tokens,
    )


@pytest.fixture(scope="module")
def together(model: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings on ranks that were started once: the folder of each, by its name.

    `trouble` with the disk of one rank, which fails at a save and lags; `unbroken` under ZeRO-3; `lacking` under it, of
    a model without all its weights; `no number`, whose first step destroys the model.
    """
    folder = tmp_path_factory.mktemp("together")
    looks = {"held_out_conversations": 8, "held_out_every_steps": 2, "max_steps": 6}
    too_fast = looks | {"held_out_every_steps": 1, "learning_rate": 1e12, "warmup_steps": 0}
    never, often = replace(PROFILE, checkpoint_every_steps=0), replace(PROFILE, checkpoint_every_steps=2)
    trouble = make_job(folder / "trouble", model, tokens, often, **looks)
    unbroken = make_job(folder / "unbroken", model, tokens, replace(never, zero_stage=3))
    lacks = tied_and_without(folder / "model", model, "model.layers.1.mlp.up_proj.weight")
    lacking = make_job(folder / "lacking", lacks, tokens, replace(never, zero_stage=3))
    no_number = make_job(folder / "no number", model, tokens, often, **too_fast)
    run_jobs([trouble, unbroken], refused=[lacking, no_number], first=trouble_for_the_second_rank)
    return folder


def tied_and_without(folder: Path, model: Path, name: str) -> Path:
    """A copy whose head is its embeddings, and whose files lack both the head and the tensor `name`."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": True}))
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def trouble_for_the_second_rank(rank: int) -> None:
    """Its disk fails once, and what others wrote there does not come into its sight."""
    from tulu_pipeline.training import train as training
    from tulu_pipeline.training.saving import checkpoints

    write, failed = checkpoints._write, []

    def fail_once(state: Any, path: str) -> None:
        if "step-4" in path and not failed:
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        write(state, path)

    if rank == 1:
        checkpoints._write = fail_once
        training.looked_at = lambda work, step: False


def test_after_kills_under_zero_2_every_loss_is_the_same_digit_for_digit(
    zero2: tuple[list[tuple[int, int]], Path],
) -> None:
    repeated, folder = zero2
    assert repeated[0][0] == 25
    assert repeated[0][1] >= 20, "little was done twice, so little was compared"
    assert [state % 7 for state, _ in repeated[1:]] == [0, 0]
    assert states_of(folder) == ["step-56", f"step-{STEPS}"]


def without_the_last_state(folder: Path) -> None:
    """As if the training had been killed before its last step."""
    shutil.rmtree(folder / "work" / "state" / f"step-{STEPS}")


def test_a_training_that_is_done_but_for_its_export_does_that_alone(
    zero2: tuple[list[tuple[int, int]], Path], model: Path, tokens: Path, tmp_path: Path
) -> None:
    shutil.copytree(zero2[1] / "work", tmp_path / "work")
    before = losses_of(tmp_path)
    metrics = train(tmp_path, model, tokens, PROFILE)
    assert metrics["resumed_from_step"] == metrics["steps"] == STEPS
    assert losses_of(tmp_path) == before
    exported, wanted = (folder / "out" / "model.safetensors" for folder in (tmp_path, zero2[1]))
    assert exported.read_bytes() == wanted.read_bytes()


def test_after_a_kill_and_a_polite_stop_under_zero_3_every_loss_is_that_of_an_unbroken_training(
    zero3: tuple[list[tuple[int, int]], Path], together: Path
) -> None:
    repeated, folder = zero3
    assert repeated[0][0] == 25
    assert repeated[0][1] >= 15, "little was done twice, so little was compared"
    assert repeated[1][1] == 0, "something was done twice although it had been saved"
    by_the_clock, last = sorted(int(name.removeprefix("step-")) for name in states_of(folder))
    assert repeated[1][0] < by_the_clock < last == STEPS, "the clock saved nothing"
    unbroken = [(step.loss, step.grad_norm) for step in read_steps(together / "unbroken" / "work" / "steps.jsonl")]
    assert len(unbroken) == STEPS
    assert losses_of(folder) == unbroken


def test_a_rank_that_cannot_write_its_state_stops_none_and_leaves_the_older_state_whole(together: Path) -> None:
    work = together / "trouble" / "work"
    lines = (work / "output-1").read_text().splitlines()
    events = [json.loads(line.removeprefix(EVENT_PREFIX)) for line in lines if line.startswith(EVENT_PREFIX)]
    told = [event for event in events if event["event"] == "save_failed"]
    assert [(event["step"], event["rank"]) for event in told] == [(4, 1)]
    assert told[0]["error"].startswith("Input/output error (")
    first, again = (list(read_steps(work / name)) for name in ("first.jsonl", "steps.jsonl"))
    assert len(first) == 6
    # Gone on with from step 2: the state after 4 failed, and the one after 6, which was saved, was taken away.
    assert again[:2] == first[:2]
    assert all(step.at > first[-1].at for step in again[2:])
    assert [step.loss for step in again] == [step.loss for step in first]
    assert states_of(together / "trouble") == ["step-6"]


def test_whether_to_look_at_what_is_held_out_is_the_same_for_all_ranks_whatever_their_disks_say(
    together: Path,
) -> None:
    """What the second rank's disk did not show it when it went on from step 2."""
    assert [look.step for look in read_held_out(together / "trouble" / "work" / "held_out.jsonl")] == [0, 2, 4, 6]


def test_a_held_out_loss_that_is_no_number_is_refused_by_all_ranks(together: Path) -> None:
    said = [(together / "no number" / f"refused-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert said[0].startswith("the held-out loss is nan after step 1\nwhere: ")
    assert states_of(together / "no number") == []


def test_a_model_that_lacks_a_tensor_is_refused_by_all_ranks_of_zero_3_and_a_tied_head_is_no_such_tensor(
    together: Path,
) -> None:
    for rank in range(2):
        said = (together / "lacking" / f"refused-{rank}").read_text()
        assert said.startswith("no file has `model.layers.1.mlp.up_proj.weight`\nwhere: ")


@pytest.fixture(scope="module")
def moved(
    zero2: tuple[list[tuple[int, int]], Path], model: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """The last steps of two ranks of ZeRO-2 once more with one; the last of those with two of ZeRO-3; one of ZeRO-1."""
    folder = tmp_path_factory.mktemp("moved")
    shutil.copytree(zero2[1] / "work", folder / "work")
    without_the_last_state(folder)
    one = train(folder, model, tokens, replace(PROFILE, ranks=1, checkpoint_every_steps=2, checkpoints_kept=2))
    without_the_last_state(folder)
    two = train(folder, model, tokens, replace(PROFILE, zero_stage=3, checkpoint_every_steps=1, checkpoints_kept=2))
    without_the_last_state(folder)
    again = train(folder, model, tokens, replace(PROFILE, ranks=1, zero_stage=1, checkpoint_every_steps=0))
    return folder, [one, two, again]


def test_what_resuming_adds_to_a_start_is_told_with_it(moved: tuple[Path, list[dict[str, Any]]]) -> None:
    for metrics in moved[1]:
        loading, resuming = metrics["seconds_loading_model"], metrics["seconds_resuming"]
        assert loading > 0
        assert resuming > 0
        assert loading + resuming < metrics["seconds_starting"]


def test_other_ranks_and_another_stage_go_on_with_the_same_losses(
    zero2: tuple[list[tuple[int, int]], Path], moved: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder, (one, two, again) = moved
    assert "converting the saved state from 2 ranks of ZeRO-2 to 1 rank of ZeRO-2" in one["notes"]
    assert "converting the saved state from 1 rank of ZeRO-2 to 2 ranks of ZeRO-3" in two["notes"]
    assert "converting the saved state from 2 ranks of ZeRO-3 to 1 rank of ZeRO-1" in again["notes"]
    assert [each["resumed_from_step"] for each in (one, two, again)] == [56, 58, 59]
    assert [step.loss for step in steps_of(folder)] == pytest.approx(
        [step.loss for step in steps_of(zero2[1])], rel=1e-5
    )
    assert states_of(folder) == ["step-59", "step-59-universal"]


def test_a_conversion_that_is_killed_leaves_the_state_as_it_was(
    zero2: tuple[list[tuple[int, int]], Path], tmp_path: Path
) -> None:
    import_once("tulu_pipeline.training.saving.conversion")
    saved = tmp_path / "saved"
    shutil.copytree(zero2[1] / "work", saved / "work")
    without_the_last_state(saved)
    shutil.copytree(saved, tmp_path / "whole")
    changes = changes_of(partial(convert, tmp_path / "whole" / "work"))
    assert states_of(tmp_path / "whole") == ["step-56", "step-56-universal"]
    for point in (0, changes // 2, changes - 2, changes - 1):  # the last: before it says what it is, and is there
        work = tmp_path / str(point) / "work"
        shutil.copytree(saved / "work", work)
        before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
        assert killed_at(point, partial(convert, work))
        assert {path: path.read_bytes() for path in before} == before
        state, _ = newest_state(work, ONE_RANK)
        assert state is not None
        assert (state.step, state.convert) == (56, True)
    assert changes_of(partial(convert, work)) > changes, "what the killed one left behind is removed first"
    state, _ = newest_state(work, ONE_RANK)
    assert state is not None
    assert (state.step, state.universal, state.convert) == (56, True, False)
    assert states_of(work.parent) == ["step-56", "step-56-universal"]


def convert(work: Path) -> None:
    """Give the newest state the form that one rank goes on from."""
    from tulu_pipeline.training.saving.conversion import convert_state

    state, _ = newest_state(work, ONE_RANK)
    assert state is not None
    convert_state(state)


def test_a_full_disk_is_told_and_the_next_state_is_saved_once_there_is_room(
    model: Path, tokens: Path, tmp_path: Path
) -> None:
    if (
        not SMALL_DISK[0]
        or subprocess.run([*SMALL_DISK, SHELL, "-c", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no user namespaces here, so no small disk can be mounted")
    state, room, after = (tmp_path / name for name in ("work/state", "room", "after"))
    state.mkdir(parents=True)
    script = f"""
{MOUNT} -t tmpfs -o size=2m tmpfs {state}
(while [ ! -e {room} ] && kill -0 $$; do {SLEEP} 0.02; done; {MOUNT} -o remount,size=64m {state}) &
"$@"
code=$?
{COPY} -r {state} {after}
exit $code
"""
    often = replace(PROFILE, checkpoint_every_steps=5)
    before = (*SMALL_DISK, SHELL, "-c", script, "sh")
    with start_run(tmp_path, model, tokens, often, before=before) as process:
        run_until(process, tmp_path, 6)
        room.touch()
        assert process.wait(300) == 0, output(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    told = [note for note in metrics["notes"] if "is not saved, going on: rank" in note]
    assert 1 <= metrics["saves_failed"] < STEPS // 5 - 1
    assert told
    assert "step 5 is not saved, going on: rank 0: No space left on device" in output(tmp_path)
    assert [path.name for path in after.iterdir()] == [f"step-{STEPS}"]


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_after_twenty_kills_at_random_moments_the_losses_are_those_of_an_unbroken_training(
    zero_stage: int, model: Path, tokens: Path, tmp_path: Path
) -> None:
    profile = replace(PROFILE, zero_stage=zero_stage, checkpoint_every_steps=3, checkpoints_kept=2)
    train(tmp_path / "unbroken", model, tokens, profile)
    wanted = losses_of(tmp_path / "unbroken")
    broken, draw = tmp_path / "broken", random.Random(zero_stage)
    seconds_to_the_first_step, kills = 5.0, 0
    while kills < 20:
        record, started = record_of(broken), time.monotonic()
        kill = draw.choice([kill_the_run, kill_a_rank_somehow, ask_to_stop_somehow])
        with start_run(broken, model, tokens, profile) as process:
            # Anywhere from the start to a few steps on; seldom so late that nothing is left to be killed.
            if draw.random() < 0.3:
                time.sleep(draw.uniform(0, seconds_to_the_first_step))
            else:
                run_until(process, broken, 1, record)
                seconds_to_the_first_step = time.monotonic() - started
                time.sleep(draw.uniform(0, 1.0))
            kills += process.poll() is None and kill(process, broken)
        assert left_behind(broken) == []
        found = losses_of(broken)
        assert found == wanted[: len(found)]
        if len(found) == STEPS:
            shutil.rmtree(broken)
    train(broken, model, tokens, profile)
    assert losses_of(broken) == wanted


def kill_the_run(process: "subprocess.Popen[str]", folder: Path) -> bool:
    """Whether it was killed: not where it had ended by itself."""
    kill_run(process, folder)
    return process.returncode == -signal.SIGKILL


def kill_a_rank_somehow(process: "subprocess.Popen[str]", folder: Path) -> bool:
    """Whatever it is doing; whether it was there to be killed."""
    killed = False
    with suppress(AssertionError, ProcessLookupError):
        os.kill(rank_pid(folder, 1), signal.SIGKILL)
        killed = True
    process.wait(120)
    return killed


def ask_to_stop_somehow(process: "subprocess.Popen[str]", folder: Path) -> bool:
    """Whatever it is doing; it may be done. Nothing is killed."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) in (-signal.SIGTERM, 143, 0)
    return False
