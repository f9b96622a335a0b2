"""A training in a process of its own, wherever that is started: its metrics, or its error, come back as a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training_runs import train

from tulu_pipeline.errors import TuluError
from tulu_pipeline.profile import Profile

STEPS = 30


def start(
    model: Path, tokens: Path, folder: Path, profile: Profile, *, before: Sequence[str] = (), **env: str
) -> subprocess.Popen[str]:
    """Train into `folder`; `before` stands before the command. `result` tells how it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    arguments = json.dumps([str(folder), str(model), str(tokens), asdict(profile)])
    with (folder / "output.log").open("a") as output:
        return subprocess.Popen(
            [*before, sys.executable, str(Path(__file__)), arguments],
            stdout=output,
            stderr=output,
            env=os.environ | env,
            text=True,
        )


def result(process: subprocess.Popen[str], folder: Path, timeout_seconds: float = 400.0) -> dict[str, Any]:
    """The metrics of a started training, or its error as `what`, `where` and `fix`."""
    process.wait(timeout=timeout_seconds)
    file = folder / "result.json"
    assert file.exists(), (folder / "output.log").read_text()
    return dict(json.loads(file.read_text()))


def main() -> None:
    folder, model, tokens, profile = json.loads(sys.argv[1])
    try:
        told = train(Path(folder), Path(model), Path(tokens), Profile(**profile), max_steps=STEPS)
    except TuluError as error:
        told = {"what": error.what, "where": error.where, "fix": error.fix}
    (Path(folder) / "result.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
