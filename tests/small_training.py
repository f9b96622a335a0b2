"""A training of seconds, for tests of what carries it: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.demo.arithmetic import problems
from tulu_pipeline.errors import TuluError
from tulu_pipeline.models import tiny
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.encode import encode_many, id_type
from tulu_pipeline.tokens.shards import TokenWriter
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.training.launch import finetune
from tulu_pipeline.training.record import StepRecord, read_steps

STEPS, SAVED_EVERY, ROW_TOKENS = 30, 10, 96
RECIPE = Recipe(
    learning_rate=2e-3,
    epochs=9.0,
    max_steps=STEPS,
    conversations_per_step=6,
    warmup_steps=5,
    max_length_tokens=ROW_TOKENS,
    dtype="fp32",
)


def write_inputs(folder: Path) -> None:
    """A tiny model and the tokens of 40 conversations."""
    model, tokens = folder / "model", folder / "tokens"
    model.mkdir(parents=True)
    tiny.write_model(model, **dict(tiny.FAMILY.models[0].sources["model"].args))
    tokenizer = load_tokenizer(model)
    conversations = [
        Conversation("a", str(number), (Message("user", problem.question), Message("assistant", problem.working)))
        for number, problem in enumerate(islice(problems(1), 40))
    ]
    tokens.mkdir()
    with TokenWriter(tokens, id_type(tokenizer.vocabulary_size), {}) as writer:
        for encoded in encode_many(conversations, tokenizer, EncodeOptions()):
            writer.write("", encoded)


def train(inputs: Path, folder: Path, profile: Profile) -> dict[str, Any]:
    """`finetune` into `folder`, in this process."""
    return finetune(
        name="finetune[tiny+a]",
        recipe=RECIPE,
        tokens=[(inputs / "tokens", 1)],
        model=inputs / "model",
        out=folder / "out",
        aux=folder / "out" / "aux",
        work=folder / "work",
        ctx=RunContext(profile=profile, settings=read_settings()),
    )


def start(
    inputs: Path, folder: Path, profile: Profile, *, before: Sequence[str] = (), **env: str
) -> subprocess.Popen[str]:
    """`train` in a process of its own, whose command `before` stands before; `result` tells how it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    arguments = json.dumps([str(inputs), str(folder), asdict(profile)])
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


def steps_of(folder: Path) -> list[StepRecord]:
    return list(read_steps(folder / "work" / "steps.jsonl"))


def losses_of(folder: Path) -> list[tuple[int, float, float | None]]:
    return [(step.step, step.loss, step.grad_norm) for step in steps_of(folder)]


def main() -> None:
    inputs, folder, profile = json.loads(sys.argv[1])
    try:
        told = train(Path(inputs), Path(folder), Profile(**profile))
    except TuluError as error:
        told = {"what": error.what, "where": error.where, "fix": error.fix}
    (Path(folder) / "result.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
