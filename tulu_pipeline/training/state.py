"""Resumable trainer state on disk: saved whole or not at all, the newest one kept.

state/step-120/            written as `.tmp-step-120`, then renamed
    identity.json          what may go on from here
    deepspeed/…            DeepSpeed's own files
state/latest               name of the newest, written last
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

TAG = "deepspeed"  # DeepSpeed's name for the folder of its files
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StateIdentity:
    """State can only be gone on from by as many ranks, the same ZeRO stage and the same releases.

    The recipe and the data are not here: the work folder belongs to one artifact, whose key holds them.
    """

    ranks: int
    zero_stage: int
    torch: str
    deepspeed: str
    schema_version: int = _SCHEMA_VERSION


def state_identity(ranks: int, zero_stage: int) -> StateIdentity:
    """The identity of state written here and now."""
    return StateIdentity(ranks=ranks, zero_stage=zero_stage, torch=version("torch"), deepspeed=version("deepspeed"))


def newest_state(work: Path, identity: StateIdentity) -> tuple[int, str]:
    """(step of the newest state to go on from, or 0; why it is 0 although there is state, or "")."""
    root = work / "state"
    try:
        name = (root / "latest").read_text().strip()
        found = json.loads((root / name / "identity.json").read_text())
    except (OSError, json.JSONDecodeError):
        return 0, ""
    wanted = asdict(identity)
    if found != wanted:
        parts = [
            f"{key} {found.get(key)} instead of {value}" for key, value in wanted.items() if found.get(key) != value
        ]
        return 0, f"the saved state `{name}` is of {', '.join(parts)}"
    return int(name.removeprefix("step-")), ""


def state_folder(work: Path, step: int) -> Path:
    """Where the state of `step` is."""
    return work / "state" / f"step-{step}"


def unfinished_folder(work: Path, step: int) -> Path:
    """Where the state of `step` is written before it is committed."""
    return work / "state" / f".tmp-step-{step}"


def commit_state(work: Path, step: int, identity: StateIdentity) -> None:
    """Make the written state of `step` the newest; earlier ones and leftovers go.

    One rank calls it, after all have written.
    """
    root, unfinished, final = work / "state", unfinished_folder(work, step), state_folder(work, step)
    (unfinished / "identity.json").write_text(json.dumps(asdict(identity)))
    for path in unfinished.rglob("*"):  # folders too: their entries must last as long as the files
        _sync(path)
    if final.exists():
        shutil.rmtree(final)
    unfinished.rename(final)
    latest = root / ".tmp-latest"
    latest.write_text(final.name)
    _sync(latest)
    latest.rename(root / "latest")
    _sync(root)
    for path in root.iterdir():
        if path.is_dir() and path != final:
            shutil.rmtree(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
