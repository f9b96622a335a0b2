"""Small trainings of the real trainer, in this process or in one that tests kill."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.demo.arithmetic import problems
from tulu_pipeline.models import tiny
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.encode import encode_many, id_type
from tulu_pipeline.tokens.shards import TokenWriter
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.training.launch import finetune
from tulu_pipeline.training.record import StepRecord, read_steps

STEPS = 60
ROW_TOKENS = 96  # two conversations of 42 to 46 tokens
RECIPE = Recipe(
    learning_rate=2e-3,
    epochs=9.0,
    max_steps=STEPS,
    conversations_per_step=6,
    warmup_steps=5,
    max_length_tokens=ROW_TOKENS,
    dtype="fp32",
)
# A whole step needs two passes of rows with two conversations each; the last of an epoch, of four, needs one.
PROFILE = Profile(ranks=2, row_tokens=ROW_TOKENS, micro_batch_conversations=2, checkpoint_every_steps=20)


def write_tiny_model(folder: Path) -> Path:
    """The demo's model, untrained."""
    tiny.write_model(folder, **dict(tiny.FAMILY.models[0].sources["model"].args))
    return folder


def write_arithmetic(folder: Path, model: Path) -> Path:
    """Tokens of forty conversations."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(model)
    conversations = [
        Conversation("a", str(number), (Message("user", problem.question), Message("assistant", problem.working)))
        for number, problem in enumerate(islice(problems(1), 40))
    ]
    with TokenWriter(folder, id_type(tokenizer.vocabulary_size), {}) as writer:
        for encoded in encode_many(conversations, tokenizer, EncodeOptions()):
            writer.write("", encoded)
    return folder


def without_compiler(tmp_path_factory: pytest.TempPathFactory) -> AbstractContextManager[pytest.MonkeyPatch]:
    """While the block runs PATH leads to an empty folder: no compiler, no ninja."""
    context = pytest.MonkeyPatch.context()
    patch = context.__enter__()
    patch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
    # Ten processes import the same libraries: compile those once, whatever the environment says.
    patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("pycache")))
    patch.setenv("PYTHONDONTWRITEBYTECODE", "")
    return context


def train(folder: Path, model: Path, tokens: Path, profile: Profile, **changes: Any) -> dict[str, Any]:
    """`finetune` into `folder`, in this process, with changes to the recipe."""
    return finetune(
        name="finetune[tiny+a]",
        recipe=replace(RECIPE, **changes),
        tokens=[(tokens, 1)],
        model=model,
        out=folder / "out",
        aux=folder / "out" / "aux",
        work=folder / "work",
        ctx=RunContext(profile=profile, settings=read_settings()),
    )


def start_training(
    folder: Path, model: Path, tokens: Path, profile: Profile, *, before: tuple[str, ...] = (), **changes: Any
) -> subprocess.Popen[str]:
    """`train` in a process of its own, which can be killed.

    Args:
        folder, model, tokens, profile, changes: of `train`.
        before: words before the command, to run it in another namespace.
    """
    script = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from training_runs import *
from tulu_pipeline.specs.recipe import Lora
train(Path({str(folder)!r}), Path({str(model)!r}), Path({str(tokens)!r}), {profile!r}, **{changes!r})
"""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [*before, sys.executable, "-c", script], stdout=output, stderr=output, env=dict(os.environ), text=True
        )


def steps_of(folder: Path) -> list[StepRecord]:
    """What is recorded so far."""
    return list(read_steps(folder / "work" / "steps.jsonl"))


def losses_of(folder: Path) -> list[tuple[float, float | None]]:
    """Loss and norm of the gradients of each step."""
    return [(step.loss, step.grad_norm) for step in steps_of(folder)]
