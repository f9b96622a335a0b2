"""Small trainings of the real trainer, in this process or in one that tests kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from tulu_pipeline.tokens.shards import TokenWriter, open_tokens
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.training.batching.batches import token_weights
from tulu_pipeline.training.batching.order import step_order
from tulu_pipeline.training.launching.launch import finetune
from tulu_pipeline.training.schedule import learning_rate
from tulu_pipeline.training.tracking.record import StepRecord, read_steps

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


def write_arithmetic(folder: Path, model: Path, conversations: int = 40) -> Path:
    """Tokens of so many conversations."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(model)
    told = [
        Conversation("a", str(number), (Message("user", problem.question), Message("assistant", problem.working)))
        for number, problem in enumerate(islice(problems(1), conversations))
    ]
    with TokenWriter(folder, id_type(tokenizer.vocabulary_size), {}) as writer:
        for encoded in encode_many(told, tokenizer, EncodeOptions()):
            writer.write("", encoded)
    return folder


@contextmanager
def without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """While the block runs PATH leads to an empty folder: no compiler, no ninja."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("extensions")))
        # Dozens of processes import the same libraries: compile those once, whatever the environment says.
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.getbasetemp() / "pycache"))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "")
        yield


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


@contextmanager
def start_run(
    folder: Path, model: Path, tokens: Path, profile: Profile, *, before: tuple[str, ...] = (), **changes: Any
) -> Iterator[subprocess.Popen[str]]:
    """While the block runs: `train` as the one stage of a run, in a process that takes signals as `tulu run` does.

    Its exit code is 0, 1 where the training failed, 143 after SIGTERM. What it logs goes to `folder / "output"`, the
    metrics to `folder / "metrics.json"`.

    Args:
        folder, model, tokens, profile, changes: of `train`.
        before: words before the command, to run it in another namespace.
    """
    script = f"""
import json, logging, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from toy_graph import Workshop
from training_runs import *
from tulu_pipeline.artifacts.interrupts import Terminated, listen
from tulu_pipeline.artifacts.run import local_threads, run

folder = Path({str(folder)!r})
def stage(job):
    metrics = train(folder, Path({str(model)!r}), Path({str(tokens)!r}), {profile!r}, **{changes!r})
    (folder / "metrics.json").write_text(json.dumps(metrics))

logging.basicConfig(level=logging.INFO)
shop = Workshop(folder / "shop")
shop.acts = {{"write[a]": stage}}
listen()
try:
    with local_threads() as submit:
        result = run(shop.plan(shop.node("write", "a")), shop.store, shop.ctx, experiment="toy", submit=submit)
except Terminated:
    sys.exit(143)
for failure in result.failed:
    print(failure.error)
sys.exit(bool(result.failed))
"""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "shop", ignore_errors=True)
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*before, sys.executable, "-c", script], stdout=output, stderr=output, env=dict(os.environ), text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def steps_of(folder: Path) -> list[StepRecord]:
    """What is recorded so far."""
    return list(read_steps(folder / "work" / "steps.jsonl"))


def losses_of(folder: Path) -> list[tuple[float, float | None]]:
    """Loss and norm of the gradients of each step."""
    return [(step.loss, step.grad_norm) for step in steps_of(folder)]


def states_of(folder: Path) -> list[str]:
    """Names of what is in the folder of saved states."""
    return sorted(path.name for path in (folder / "work" / "state").glob("*"))


def rank_pid(folder: Path, rank: int) -> int:
    """The process of a rank of the training in `folder`."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            here = any(str(folder) in word for word in words)
            if here and f"RANK={rank}" in variables and words[1:4] == ["-u", "-m", "tulu_pipeline.training.worker"]:
                return int(entry.name)
    raise AssertionError(f"no rank {rank} of {folder} is running")


def losses_in_torch(model: Any, tokens: Path, recipe: Recipe, steps: int) -> list[float]:
    """The recipe in a dozen lines of torch, one conversation at a time; trains what of `model` wants gradients."""
    import numpy as np
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
    rows = open_tokens(tokens)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, step, steps)
        chosen = [rows[int(row)] for row in step_order(len(rows), recipe.conversations_per_step, recipe.seed, step)]
        total = 0.0
        for (ids, _), weights in zip(chosen, token_weights([mask for _, mask in chosen], "micro_mean", 2), strict=True):
            input_ids = torch.tensor(ids.astype(np.int64))[None]
            logits = model(input_ids=input_ids).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, input_ids[0, 1:], reduction="none")
            loss = (nll * torch.tensor(weights)[1:]).sum()
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses
