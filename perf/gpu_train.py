"""Tokens per second and MFU of finetuning a Llama of a billion parameters on GPUs, one technique after the other.

Each row is a training of its own through the product's launcher, of the same untrained weights and conversations, with
the settings of the row that it names and its own on top; `gain` is its tokens per second over that row's. Tokens are
useful ones, without padding; so is the MFU's numerator (`training/estimates/flops.py`: attention counted causally,
recomputed activations not counted), and its denominator is the dense bf16 peak of the device's data sheet. Memory is
what tensors took at most on the fullest GPU. The first steps of each are not counted.

Conversations have the lengths of the Tülu mixture (lognormal, a mean of 394 tokens, cut at 2,048), or all 2,048 tokens,
which is what published figures are of. Where there is no GPU the same trainings run with a tiny model on the CPU, and
every figure of a GPU reads "not measured". A technique that the machine lacks, or memory that does not suffice, is the
row's note. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perf.normalize import SEED
from perf.pack import LONGEST_TOKENS, Lengths, lognormal_lengths
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.models.tiny import write_tokenizer
from tulu_pipeline.profile import Profile, count_gpus
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.encode import Encoded
from tulu_pipeline.tokens.shards import TokenWriter
from tulu_pipeline.training.launching.launch import finetune
from tulu_pipeline.training.tracking.record import StepRecord, read_steps

NOT_MEASURED = "not measured"
UNCOUNTED_STEPS = 2
# LLaMA's proportions, heads of 128 as in the 7B: 1.14 billion parameters.
MODEL = {"hidden": 2048, "layers": 20, "heads": 16, "feed_forward": 5504, "vocabulary": 32_000}
TINY = {"hidden": 64, "layers": 2, "heads": 2, "feed_forward": 176, "vocabulary": 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training.

    Attributes:
        technique: what is new in it.
        over: the row that it builds on; "" for the first.
        changes: to that row's profile.
        needs: the kernel without which the technique is not there: (what of it, its name).
        full: every conversation has the greatest length.
    """

    technique: str
    over: str = ""
    changes: dict[str, Any]
    needs: tuple[str, str] | None = None
    full: bool = False


ROWS = {
    "padded": Row(technique="4 conversations in a pass, padded, as the original", changes={}),
    "step": Row(
        technique="end to end, rows of 8,192 tokens",
        over="padded",
        changes={"layout": "step", "row_tokens": 8192},
    ),
    "varlen": Row(
        technique="flash attention over rows of many lengths",
        over="step",
        changes={"kernels": "attention"},
        needs=("attention", "varlen"),
    ),
    "head_loss": Row(
        technique="the loss at the output head, some tokens at a time",
        over="varlen",
        changes={"kernels": "head"},
        needs=("loss", "chunked"),
    ),
    "layers": Row(
        technique="Liger's norms, rotary embedding and feed-forward",
        over="head_loss",
        changes={"kernels": "auto"},
        needs=("layers", "liger"),
    ),
    "rows_16k": Row(technique="rows of 16,384 tokens", over="layers", changes={"row_tokens": 16_384}),
    "checkpointing": Row(technique="gradient checkpointing", over="rows_16k", changes={"gradient_checkpointing": True}),
    "rows_64k": Row(
        technique="what it leaves room for: rows of 65,536 tokens",
        over="checkpointing",
        changes={"row_tokens": 65_536},
    ),
    "zero0": Row(technique="ZeRO-0", over="rows_16k", changes={"zero_stage": 0}),
    "zero3": Row(technique="ZeRO-3", over="rows_16k", changes={"zero_stage": 3}),
    "offload": Row(
        technique="optimizer in CPU memory, its step compiled",
        over="rows_16k",
        changes={"offload": True},
        needs=("optimizer", "DeepSpeedCPUAdam"),
    ),
    "full": Row(technique="every conversation of 2,048 tokens", over="rows_16k", changes={}, full=True),
}


def profile_of(name: str, first: Profile) -> Profile:
    """All changes down to the first row."""
    row = ROWS[name]
    return replace(profile_of(row.over, first) if row.over else first, **row.changes)


def write_model(folder: Path, shape: dict[str, int]) -> None:
    """An untrained Llama of this shape, in bf16, and a tokenizer whose entries it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["feed_forward"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        max_position_embeddings=LONGEST_TOKENS,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder, vocabulary=min(1024, shape["vocabulary"]), all_words=0)


def write_tokens(folder: Path, lengths: Lengths, entries: int) -> None:
    """Conversations of these lengths, of ids drawn at random; the second half of each is supervised."""
    folder.mkdir()
    generator = np.random.default_rng(SEED)
    with TokenWriter(folder, np.uint16, {}) as writer:
        for number, length in enumerate(lengths.tolist()):
            mask = np.zeros(length, dtype=np.uint8)
            mask[length // 2 :] = 1
            ids = generator.integers(4, entries, length).astype(np.uint16)
            writer.write(str(number), Encoded(ids, mask, truncated=False))


def figures(metrics: dict[str, Any], steps: list[StepRecord], *, gpu: bool) -> dict[str, Any]:
    """Of the counted steps; what only a GPU has is not measured where there is none."""
    counted = steps[UNCOUNTED_STEPS:]
    seconds = sum(step.seconds for step in counted)
    utilized = [step.mfu * step.seconds for step in counted if step.mfu is not None]
    measured: dict[str, Any] = {
        "tokens_per_second": round(sum(step.tokens for step in counted) / seconds),
        "supervised_tokens_per_second": round(sum(step.supervised_tokens for step in counted) / seconds),
        "mfu": round(sum(utilized) / seconds, 4) if utilized else NOT_MEASURED,
        "memory_gib": round(max(step.memory_bytes or 0 for step in counted) / 2**30, 2),
        "data_wait_share": round(sum(step.data_seconds or 0.0 for step in counted) / seconds, 4),
        "seconds_starting": round(metrics["seconds_starting"], 1),
    }
    if not gpu:
        measured = dict.fromkeys(measured, NOT_MEASURED)
    return measured | {
        "padding_share": round(1.0 - sum(s.tokens for s in counted) / sum(s.computed_tokens for s in counted), 4),
        "loss": round(counted[-1].loss, 4),
        "kernels": metrics["kernels"],
        "device": metrics["device"] or "CPU",
    }


def train(folder: Path, model: Path, tokens: Path, recipe: Recipe, profile: Profile) -> dict[str, Any]:
    """One row's training: its figures, or the note that says why there are none."""
    try:
        metrics = finetune(
            name=f"finetune[{folder.name}]",
            recipe=recipe,
            tokens=[(tokens, 1)],
            model=model,
            out=folder / "out",
            aux=folder / "aux",
            work=folder / "work",
            ctx=RunContext(profile=profile, settings=read_settings()),
        )
    except StageFailed as error:
        if "memory" not in error.what:
            raise
        return {"note": f"does not fit: {error.what}"[:300]}
    return figures(metrics, list(read_steps(folder / "work" / "steps.jsonl")), gpu=count_gpus() > 0)


def gain(found: dict[str, Any], over: dict[str, Any] | None) -> float | str:
    """Of tokens per second, where both were measured."""
    speeds = [(each or {}).get("tokens_per_second") for each in (found, over)]
    own, other = (speed if isinstance(speed, int) else None for speed in speeds)
    return round(own / other, 2) if own and other else NOT_MEASURED


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--steps", type=int, help=f"of each training, {UNCOUNTED_STEPS} of them not counted")
    parser.add_argument("--per-step", type=int, help="conversations of a step")
    options = parser.parse_args()
    gpus = count_gpus()
    steps, per_step = options.steps or (10 if gpus else 3), options.per_step or (128 if gpus else 4)
    if steps <= UNCOUNTED_STEPS:
        parser.error(f"{UNCOUNTED_STEPS + 1} steps or more: the first {UNCOUNTED_STEPS} are not counted")
    shape = MODEL if gpus else TINY
    longest = LONGEST_TOKENS if gpus else 256
    recipe = Recipe(max_steps=steps, conversations_per_step=per_step, max_length_tokens=longest)
    first = Profile(ranks=max(1, gpus), zero_stage=2, layout="padded", kernels="torch", checkpoint_every_steps=0)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        write_model(home / "model", shape)
        lengths = np.minimum(lognormal_lengths(steps * per_step), longest)
        write_tokens(home / "tokens", lengths, shape["vocabulary"])
        write_tokens(home / "full", np.full_like(lengths, longest), shape["vocabulary"])
        for name in options.rows:
            row, tokens = ROWS[name], home / ("full" if ROWS[name].full else "tokens")
            profile = profile_of(name, first)
            its = train(home / name, home / "model", tokens, recipe, profile)
            if row.needs and its.get("kernels", {}).get(row.needs[0]) not in (None, row.needs[1]):
                its["note"] = f"`{row.needs[1]}` is not on this machine"
            found[name] = {"technique": row.technique, "over": row.over, "gain": gain(its, found.get(row.over))} | its
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    result = {
        "rows": found,
        "settings": {
            "model": shape,
            "steps": steps,
            "conversations_per_step": per_step,
            "mean_tokens": round(float(lengths.mean()), 1),
            "gpus": gpus,
            "first_row": {"zero_stage": 2, "per_row": first.micro_batch_conversations, "dtype": recipe.dtype},
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
