"""A saved state in DeepSpeed's universal form, which another number of ranks and another ZeRO stage go on from."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.checkpoint import ds_to_universal
from deepspeed.checkpoint.constants import CAT_DIM, PARAM

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.saving.state import TAG, SavedState, commit_state, new_unfinished_folder, state_identity

_MODEL_FILE = "mp_rank_00_model_states.pt"  # of ZeRO 1 and 2
_MODEL_FILE_3 = "zero_pp_rank_0_mp_rank_00_model_states.pt"


def convert_saved_state(job: TrainingJob, rank: int) -> None:
    """Give the state that the job goes on from the universal form, where it must have it; all ranks call this.

    The state as it was saved stays until the next one is.
    """
    state = job.resume
    if state is None or not state.convert:
        return
    if rank == 0:
        wrote = state.identity
        text = f"converting the saved state from {_layout(wrote.ranks, wrote.zero_stage)} to "
        emit({"event": "note", "text": text + _layout(job.ranks, job.profile.zero_stage)})
        convert_state(state)
    dist.barrier()


def convert_state(state: SavedState) -> None:
    """Write the universal form of a state beside it, file by file: one rank's part is in memory at a time."""
    final = state.loaded_from
    out = new_unfinished_folder(final) / TAG
    ds_to_universal.main(
        argparse.Namespace(
            input_folder=str(state.folder / TAG),
            output_folder=str(out),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
    )
    _speak_for_all_stages(out)
    for path in out.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    commit_state(final, state.identity)


def _layout(ranks: int, zero_stage: int) -> str:
    return f"{ranks} rank{'s' * (ranks > 1)} of ZeRO-{zero_stage}"


def _speak_for_all_stages(out: Path) -> None:
    """Make the files of each parameter, and those beside them, what either kind of stage asks for."""
    common = out / "zero" / "optimizer_state.pt"
    state: dict[str, Any] = torch.load(common, map_location="cpu", weights_only=False)
    inner = state.pop("optimizer_state_dict", None)
    state.pop("fp32_flat_groups", None)  # a rank's part of the weights, which nobody reads here
    steps = [torch.load(path, weights_only=False) for path in (out / "zero").rglob("step.pt")][:1]
    step = steps[0] if steps else inner["state"][0]["step"]
    for parameter in {path.parent for path in (out / "zero").rglob("exp_avg.pt")}:  # others are not trained
        torch.save(step, parameter / "step.pt")
        for part in ("fp32.pt", "exp_avg.pt", "exp_avg_sq.pt"):
            tensor = torch.load(parameter / part, map_location="cpu", weights_only=False)
            if torch.is_tensor(tensor):  # as ZeRO-3 writes it, and ZeRO 1 and 2 do not read it
                torch.save({PARAM: tensor, CAT_DIM: 0}, parameter / part)
    state.setdefault("ds_version", state_identity(1, 1).deepspeed)
    state["optimizer_state_dict"] = {"state": {0: {"step": step}}, "param_groups": state["param_groups"]}
    torch.save(state, common)
    for found, missing in ((_MODEL_FILE, _MODEL_FILE_3), (_MODEL_FILE_3, _MODEL_FILE)):
        if (out / found).exists() and not (out / missing).exists():
            shutil.copyfile(out / found, out / missing)
