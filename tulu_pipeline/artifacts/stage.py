"""What a stage is, and what it is given when it runs.

A stage turns input folders into one output folder. `Params` is identity: everything that may change the bytes.
`RunContext` is execution: where, how wide, how fast. Nothing of it enters a key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.budget import Budget
from tulu_pipeline.profile import Profile, Slot
from tulu_pipeline.settings import Settings

P = TypeVar("P")
Metrics = Mapping[str, Any]
AUX = "aux"


class ReportProgress(Protocol):
    """Tells whoever watches how far `name` is; `total` None when unknown, `note` for loss, ETA and the like."""

    def __call__(self, name: str, done: float, total: float | None, unit: str, note: str = "") -> None: ...


def no_progress(name: str, done: float, total: float | None, unit: str, note: str = "") -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """How this run runs; never hashed.

    Attributes:
        profile: the machine.
        settings: what the environment says.
        progress: where progress goes.
        strict_rows: fail a stage on the first malformed row instead of dropping it with its reason.
        budget: what may be spent on servers that are paid.
        unsafe_code: execute programs that a model wrote even where they cannot be isolated.
        on_child: called with (pid of the supervisor) for each child process, so that a takeover can end it.
    """

    profile: Profile
    settings: Settings
    progress: ReportProgress = no_progress
    strict_rows: bool = False
    unsafe_code: bool = False
    budget: Budget = field(default_factory=Budget)
    on_child: Callable[[int], None] = field(default=lambda pid: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[P]):
    """One artifact to make.

    Attributes:
        name: `stage[cell]`.
        key: what it is published under.
        params: the stage's parameters.
        inputs: local folder of each input artifact; None for one that could not be made
            (only in stages with `tolerates_missing`).
        sources: what the artifact reads from outside (download stages only).
        pinned: the sha256 that a source has by the artifact's key; absent where that was not known.
        out: empty folder for the outputs. Files under `out/aux` are stored but not digested.
        work: folder that survives a kill, for resumable state; removed once published.
        publish: call once when the outputs are complete, with metrics for the manifest. A stage that makes one
            artifact returns its metrics instead; a batch stage calls it as each job is done.
    """

    name: str
    params: P
    inputs: Mapping[str, Path | None]
    sources: Mapping[str, Source]
    out: Path
    work: Path
    publish: Callable[[Metrics], None]
    pinned: Mapping[str, str] = field(default_factory=dict)
    key: str = ""

    def input(self, name: str) -> Path:
        """The folder of an input that is there."""
        path = self.inputs[name]
        assert path is not None, f"{self.name}: input {name} is missing"
        return path

    @property
    def aux(self) -> Path:
        """The folder for what is stored but not digested."""
        path = self.out / AUX
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Generic[P]):
    """A kind of work.

    Attributes:
        name: used in commands and cell names.
        version: bumped by hand when the same params and inputs give other bytes.
        params: the frozen dataclass of its parameters.
        run: makes one artifact, or (with `batch`) several of one group in one go.
        batch: `run` takes all stale jobs of a group at once and publishes each itself.
        deterministic: the same inputs give the same bytes every time.
        slot: what it occupies while it runs.
        env: packages whose version changes bytes; part of the key.
        tolerates_missing: runs although an input failed; the input is then None.
    """

    name: str
    version: int
    params: type[P]
    run: Callable[[Job[P], RunContext], Metrics] | Callable[[Sequence[Job[P]], RunContext], None]
    batch: bool = False
    deterministic: bool = True
    slot: Slot = "cpu"
    env: tuple[str, ...] = ()
    tolerates_missing: bool = False
