"""What the parent tells the ranks: one JSON file, read by each of them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.saving.state import SavedState

ADAPTER_FOLDER = "adapter"  # of the work folder, and then of `aux`: the adapters as they are, before they are merged


class TrainingJob(BaseModel):
    """One finetuning, as the ranks see it.

    Attributes:
        recipe: what to do.
        profile: how wide, and in which layout.
        tokens: folder of each component's tokens and how often each conversation is seen in an epoch.
        model: folder of the base model.
        out: folder the checkpoint is exported to.
        work: folder for resumable state and the running record.
        deepspeed: its configuration.
        resume: the saved state to go on from; None starts anew.
        stop_file: when it is there, the ranks finish the step they are at, save and end.
        rendezvous: file through which the ranks find each other; must not exist.
        secret: what the run and its nodes know each other by: only who may read the file has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 3
    recipe: Recipe
    profile: Profile
    tokens: tuple[tuple[Path, int], ...]
    model: Path
    out: Path
    work: Path
    deepspeed: dict[str, Any]
    resume: SavedState | None
    stop_file: Path
    rendezvous: Path
    secret: str = Field(default_factory=lambda: secrets.token_hex(32), repr=False)

    @property
    def ranks(self) -> int:
        """Processes over all nodes."""
        return self.profile.ranks * self.profile.nodes

    def write(self, path: Path) -> None:
        """Write the file, for this user alone."""
        path.unlink(missing_ok=True)  # an older one would keep its mode
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.model_dump_json(indent=1))
