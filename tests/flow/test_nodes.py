"""One finetuning over two machines: by a hostfile and ssh, by torchrun, in a job of Slurm. All of it is real.

The machines are network namespaces of this one, which see each other over a cable only; Slurm's two nodes are two of
its daemons.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.machines import (
    ADDRESSES,
    TwoMachines,
    missing_for_slurm,
    missing_for_ssh,
    missing_for_two_machines,
    slurm_cluster,
    ssh_servers,
    two_machines,
)
from fakes.processes import TULU, kill_once, left_behind
from fakes.waiting import wait_for
from small_training import STEPS, result, start
from training_runs import PROFILE as ONE_MACHINE
from training_runs import losses_of, steps_of, train, write_arithmetic, write_tiny_model

from tulu_pipeline.training.saving.state import newest_state, state_identity

pytestmark = pytest.mark.timeout(900)  # two cores for eight processes that import torch

SCRIPT = Path(__file__).parents[2] / "deployments" / "slurm" / "tulu.sbatch"
SAVED_EVERY, KILLED_AFTER = 10, 15
PROFILE = replace(ONE_MACHINE, ranks=1, nodes=2, node_wait_seconds=120.0, checkpoint_every_steps=SAVED_EVERY)
Inputs = tuple[Path, Path]  # model and tokens
Losses = list[tuple[float, float | None]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    model = write_tiny_model(tmp_path_factory.mktemp("model"))
    return model, write_arithmetic(tmp_path_factory.mktemp("tokens"), model)


@pytest.fixture(scope="module")
def losses(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Of two ranks on one machine."""
    folder = tmp_path_factory.mktemp("one-machine")
    train(folder, *inputs, ONE_MACHINE, max_steps=STEPS)
    found = losses_of(folder)
    assert len(found) == STEPS
    return found


@pytest.fixture(scope="module")
def machines() -> Iterator[TwoMachines]:
    if reason := missing_for_two_machines():
        pytest.skip(reason)
    with two_machines() as both:
        yield both


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What leads Slurm's commands to a cluster of two nodes."""
    if reason := missing_for_slurm():
        pytest.skip(reason)
    with slurm_cluster(tmp_path_factory.mktemp("slurm") / "cluster") as config:
        yield {"SLURM_CONF": config}


def asked_of_slurm(slurm: dict[str, str], *words: str) -> str:
    return subprocess.run(words, env=os.environ | slurm, capture_output=True, text=True, check=True).stdout.strip()


def test_a_hostfile_trains_as_one_machine_does_though_a_node_dies_on_the_way(
    machines: TwoMachines, inputs: Inputs, losses: Losses, tmp_path: Path
) -> None:
    if reason := missing_for_ssh():
        pytest.skip(reason)
    (tmp_path / "hostfile").write_text("".join(f"{address} slots=2\n" for address in ADDRESSES))
    with ssh_servers(machines, tmp_path / "ssh") as (words, servers):
        profile = replace(
            PROFILE, launcher="hostfile", hostfile=str(tmp_path / "hostfile"), exclude=f"{ADDRESSES[1]}:0",
            launcher_arguments=words,
        )  # fmt: skip
        folder = tmp_path / "training"
        process = start(*inputs, folder, profile, before=machines.on(0))
        wait_for(lambda: len(steps_of(folder)) >= KILLED_AFTER or process.poll() is not None, 400)
        machines.kill(1, but=servers)
        told = result(process, folder, timeout_seconds=120)
        assert told.get("what") == f"the node {ADDRESSES[1]} is gone: its connection ended", told
        assert told["where"] == str(folder / "work" / "nodes" / f"1-{ADDRESSES[1]}.log")
        assert left_behind(folder) == []
        before = losses_of(folder)
        assert before == losses[: len(before)]

        metrics = result(start(*inputs, folder, profile, before=machines.on(0)), folder)
        assert metrics.get("resumed_from_step") == SAVED_EVERY, metrics
        assert losses_of(folder) == losses
        assert (metrics["ranks"], metrics["nodes"]) == (2, 2)
        assert metrics["notes"][-1].startswith(f"nodes {', '.join(ADDRESSES)};")
        assert (folder / "out" / "model.safetensors").exists()
        assert len(list((folder / "out" / "aux" / "nodes").glob("[01]-*.log"))) == 2


def test_torchrun_trains_as_one_machine_does_though_the_run_is_killed_on_the_way(
    machines: TwoMachines, inputs: Inputs, losses: Losses, tmp_path: Path
) -> None:
    folder = tmp_path / "training"
    profile = replace(PROFILE, launcher="torchrun")
    endpoint = f"{ADDRESSES[0]}:29400"
    with (tmp_path / "join.log").open("w") as log:
        join = [*machines.on(1), TULU, "join", endpoint, "--name", "second", "--wait-minutes", "3"]
        joining = subprocess.Popen(join, stdout=log, stderr=log, env=dict(os.environ))
    try:
        # Nothing leads out of these machines, so that the address must be told.
        profile = replace(profile, rendezvous=endpoint)
        kill_once(start(*inputs, folder, profile, before=machines.on(0)), lambda: len(steps_of(folder)) >= KILLED_AFTER)
        assert left_behind(folder) == []
        assert joining.poll() is None, "who joined waits for the next finetuning"

        metrics = result(start(*inputs, folder, profile, before=machines.on(0)), folder)
        assert metrics.get("resumed_from_step") == SAVED_EVERY, metrics
        assert losses_of(folder) == losses
        assert metrics["notes"][-1].endswith("second; no GPU: ranks talk through gloo")
    finally:
        joining.kill()
        joining.wait()


def test_a_job_of_slurm_trains_as_one_machine_does_and_saves_when_it_is_told_to_go(
    slurm: dict[str, str], inputs: Inputs, losses: Losses, tmp_path: Path
) -> None:
    folder = tmp_path / "training"
    profile = replace(PROFILE, launcher="slurm", checkpoint_every_steps=0)
    process = start(*inputs, folder, profile, before=["salloc", "--quiet", "--nodes=2"], **slurm)
    wait_for(lambda: len(steps_of(folder)) >= KILLED_AFTER or process.poll() is not None, 400)
    # What a preempted job gets: SIGTERM to the tasks of its steps.
    job = asked_of_slurm(slurm, "squeue", "--noheader", "--format=%i")
    asked_of_slurm(slurm, "scancel", "--signal=TERM", f"{job}.0")
    told = result(process, folder, timeout_seconds=120)
    assert told.get("what", "").startswith("interrupted after step"), told
    found = losses_of(folder)
    assert KILLED_AFTER <= len(found) < STEPS
    assert found == losses[: len(found)]
    saved = newest_state(folder / "work", state_identity(2, profile.zero_stage))[0]
    assert saved is not None
    assert saved.step == len(found)
    assert (folder / "work" / "nodes" / "1-node-b.log").exists()


def test_the_script_for_slurm_asks_the_run_to_end_in_time_and_queues_itself_again(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    log, run = tmp_path / "job.log", tmp_path / "tulu"
    run.write_text("#!/bin/sh\ntrap 'echo saved; exit 143' TERM\necho \"$@\"\nwhile :; do sleep 0.1; done\n")
    run.chmod(0o755)
    job = asked_of_slurm(
        slurm | {"TULU": str(run)},
        *("sbatch", "--parsable", "--nodes=2", "--gpus-per-node=0", f"--chdir={tmp_path}", f"--output={log}"),
        *(str(SCRIPT), "table1", "--profile", "slurm-4x8"),
    )
    wait_for(lambda: log.exists() and "run table1 --profile slurm-4x8" in log.read_text(), 400)
    asked_of_slurm(slurm, "scancel", "--signal=USR1", "--batch", job)
    wait_for(lambda: "Restarts=1" in asked_of_slurm(slurm, "scontrol", "show", "job", job), 400)
    assert "saved" in log.read_text()
    wait_for(lambda: asked_of_slurm(slurm, "squeue", "--noheader", "--format=%t", f"--jobs={job}") == "PD", 400)
    asked_of_slurm(slurm, "scancel", job)
