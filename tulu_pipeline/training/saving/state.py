"""Resumable trainer state on disk: each state is there whole or not at all, the newest ones are kept.

state/step-120/              written as `.tmp-step-120`, then renamed: from that moment on it is there
    identity.json            what may go on from here; the size of every file
    deepspeed/…              DeepSpeed's own files, one per rank
state/step-120-universal/    the same step converted to DeepSpeed's universal form, for any number of ranks
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tulu_pipeline.errors import StageFailed

TAG = "deepspeed"  # DeepSpeed's name for the folder of its files
_SCHEMA_VERSION = 2
_IDENTITY_FILE = "identity.json"
_NAME = re.compile(r"step-(\d+)(-universal)?")
_CONVERTIBLE_STAGES = range(1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateIdentity:
    """What wrote a state. The same ranks and stage go on from it as it is; other releases try to.

    The recipe and the data are not here: the work folder belongs to one artifact, whose key holds them.
    """

    ranks: int
    zero_stage: int
    torch: str
    deepspeed: str
    schema_version: int = _SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """A state to go on from.

    Attributes:
        step: optimizer steps behind it.
        folder: where it is.
        identity: what wrote it.
        universal: whether it has the form that any number of ranks reads.
        convert: whether it must be given that form first.
    """

    step: int
    folder: Path
    identity: StateIdentity
    universal: bool
    convert: bool

    @property
    def loaded_from(self) -> Path:
        """Where the state that is loaded is, or will be once it is converted."""
        return state_folder(self.folder.parents[1], self.step, universal=True) if self.convert else self.folder


def state_identity(ranks: int, zero_stage: int) -> StateIdentity:
    """The identity of state written here and now."""
    return StateIdentity(ranks=ranks, zero_stage=zero_stage, torch=version("torch"), deepspeed=version("deepspeed"))


def newest_state(work: Path, wanted: StateIdentity) -> tuple[SavedState | None, list[str]]:
    """The newest state that `wanted` can go on from, None where there is none; and why newer ones were left out.

    Raises:
        StageFailed: the disk does not say what is there, which is no reason to start over.
    """
    try:
        return _newest_state(work, wanted)
    except OSError as error:
        where = str(error.filename or work / "state")
        fix = "see what the disk has, then run again: nothing of it was touched"
        raise StageFailed(f"the saved states cannot be read: {error.strerror or error}", where, fix) from error


def _newest_state(work: Path, wanted: StateIdentity) -> tuple[SavedState | None, list[str]]:
    left_out = []
    convertible: SavedState | None = None
    for step, universal, folder in _states(work.absolute()):
        if convertible is not None and step < convertible.step:
            break
        try:
            identity = _identity_of(folder)
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError) as error:
            left_out.append(f"the saved state `{folder.name}` is damaged: {error}")
            continue
        if reason := _why_not(identity, wanted):
            left_out.append(f"the saved state `{folder.name}` {reason}")
            continue
        convert = not universal and not _same_layout(identity, wanted)
        found = SavedState(step=step, folder=folder, identity=identity, universal=universal, convert=convert)
        if not convert:
            return found, left_out
        convertible = found  # unless it was converted before
    return convertible, left_out


def other_releases(wrote: StateIdentity, here: StateIdentity) -> str:
    """What differs between the releases that wrote a state and those that would go on from it; "" where nothing does.

    Of which device torch was built for says nothing about the files.
    """
    found = {key: (getattr(wrote, key), getattr(here, key)) for key in ("torch", "deepspeed")}
    return ", ".join(
        f"{key} {old} instead of {new}" for key, (old, new) in found.items() if _release(old) != _release(new)
    )


def saved_steps(work: Path) -> set[int]:
    """The steps of whatever states are there."""
    return {step for step, _, _ in _states(work)}


def state_folder(work: Path, step: int, *, universal: bool = False) -> Path:
    """Where the state of `step` is."""
    return work / "state" / (f"step-{step}-universal" if universal else f"step-{step}")


def unfinished_folder(final: Path) -> Path:
    """Where the state `final` is written before it is committed."""
    return final.with_name(f".tmp-{final.name}")


def new_unfinished_folder(final: Path) -> Path:
    """The empty folder to write the state `final` into; leftovers of what was cut off go."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (*final.parent.glob(".tmp-step-*"), *final.parent.glob(".old-step-*")):
        shutil.rmtree(leftover)
    folder = unfinished_folder(final)
    (folder / TAG).mkdir(parents=True)
    return folder


def commit_state(final: Path, identity: StateIdentity) -> None:
    """Make the state that was written into `unfinished_folder(final)` one that is there.

    The files' bytes must have reached the disk before. One rank calls it, after all have written.
    """
    unfinished = unfinished_folder(final)
    sizes = {str(path.relative_to(unfinished)): path.stat().st_size for path in _files(unfinished)}
    with (unfinished / _IDENTITY_FILE).open("w") as file:
        json.dump(asdict(identity) | {"sizes": sizes}, file)
        file.flush()
        os.fsync(file.fileno())
    for folder in (*(path for path in unfinished.rglob("*") if path.is_dir()), unfinished):
        _sync(folder)  # their entries must last as long as the files
    if final.exists():  # damaged, or it would have been gone on from
        _remove(final)
    unfinished.rename(final)
    _sync(final.parent)


def discard_unfinished(final: Path) -> None:
    """Remove what was written of the state `final`, as far as that is possible."""
    shutil.rmtree(unfinished_folder(final), ignore_errors=True)


def prune_states(work: Path, own: Collection[int], kept: int) -> None:
    """Of the steps that are this training's `own`, leave the `kept` newest. Others are not touched.

    A state that was not gone on from may hold days of work that another machine can read.
    """
    there = _states(work)
    newest = sorted({step for step, _, _ in there if step in own}, reverse=True)[:kept]
    for step, _, folder in there:
        if step in own and step not in newest:
            _remove(folder)


def _states(work: Path) -> list[tuple[int, bool, Path]]:
    """(step, whether universal, folder) of whatever is there, the newest first, and as written before converted."""
    paths = (work / "state").glob("step-*")
    matches = ((path, _NAME.fullmatch(path.name)) for path in paths)
    found = [(int(match[1]), match[2] is not None, path) for path, match in matches if match]
    return sorted(found, key=lambda state: (-state[0], state[1]))


def _identity_of(folder: Path) -> StateIdentity:
    """Of a state whose files are all there.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError, TypeError: they are not.
        OSError: the disk does not say.
    """
    described = json.loads((folder / _IDENTITY_FILE).read_text())
    if not isinstance(described, dict):
        raise TypeError(f"`{_IDENTITY_FILE}` is no object")
    for name, size in described.pop("sizes", {}).items():
        found = (folder / name).stat().st_size
        if found != size:
            raise ValueError(f"`{name}` has {found:,} bytes instead of {size:,}")
    return StateIdentity(**described)


def _why_not(identity: StateIdentity, wanted: StateIdentity) -> str:
    """Why `wanted` cannot go on from it, not even converted; "" where it can."""
    if identity.schema_version != wanted.schema_version:
        return f"is of schema_version {identity.schema_version} instead of {wanted.schema_version}"
    if _same_layout(identity, wanted) or {identity.zero_stage, wanted.zero_stage} <= set(_CONVERTIBLE_STAGES):
        return ""
    return f"is of ZeRO stage {identity.zero_stage}, from which stage {wanted.zero_stage} cannot go on"


def _release(text: str) -> str:
    """A version without its local part: 2.9.1 of 2.9.1+cu126."""
    return text.partition("+")[0]


def _same_layout(identity: StateIdentity, wanted: StateIdentity) -> bool:
    """Whether each rank finds its own part. Without ZeRO every rank holds everything."""
    if identity.zero_stage == wanted.zero_stage == 0:
        return True
    return (identity.ranks, identity.zero_stage) == (wanted.ranks, wanted.zero_stage)


def _remove(folder: Path) -> None:
    """Cut off in the middle it is no state any more."""
    doomed = folder.with_name(f".old-{folder.name}")
    if doomed.exists():
        shutil.rmtree(doomed)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != _IDENTITY_FILE)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
