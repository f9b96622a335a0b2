"""Supervised tokens per second of a finetuning, against TRL's SFTTrainer padded and packed, on the CPU.

Four trainings of one untrained Llama over the same steps of the same conversations, two ranks each, in turn: `step`
(ours: each step's conversations end to end, without padding), `padded` (ours, as the original did it), `trl_padded` and
`trl_packed`. Their optimizer, schedule, precision, threads and environment are the same, so is the loss (one mean over
a step's supervised tokens); ours runs through the product's own launcher with ZeRO-2, TRL through torchrun with DDP.
TRL gets the tokens ready-made and in our order, so that each of its padded steps, and each micro-batch, holds the very
conversations that ours does: `loss_difference` is the largest between their losses, of the loss itself. `trl_packed`
is TRL's best fit decreasing into rows of the longest length, over the conversations of all steps, in as many steps.
Without flash attention transformers keeps its packed conversations apart by a mask over the whole pass, so there a pass
is one row: four, flattened as TRL does, need a mask sixteen times as large and three times the work. The first step of
each is not counted. Ratios are of supervised tokens per second in the same repetition; their median counts.

`ideal_ratio` is what the lengths in the counted steps allow over `trl_padded` if time is what the slowest rank of each
pass computes: no padding, and even ranks. More is possible: attention grows with the square of a length, and TRL takes
logits of every position where there is no GPU. `shares` simulates a whole epoch, with rows of the profile's default,
four times the longest conversation: `useful` tokens of those computed, and `busy` of those that could be computed while
the slowest rank of each pass computes its own. `data_wait_share` is what our ranks waited for their batches, the one
that waited longest in each step, of the time of the counted steps; that of the layout in which it is more.

Conversations are real with a mirror (TULU_MIRROR): 2,000 of Alpaca, and what the dataset's own rules make of 998 rows
of ShareGPT. Without one they are random ids with lengths alike. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import numpy as np

from perf.normalize import SEED
from perf.pack import Lengths
from perf.tokenization import IGNORED, real_conversations, train_tokenizer
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.models import tiny
from tulu_pipeline.profile import Layout, Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.encode import Encoded, encode_many
from tulu_pipeline.tokens.shards import TokenWriter, open_tokens
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.training.batching.order import epoch_steps, step_order
from tulu_pipeline.training.batching.plans import (
    global_plan,
    global_rows,
    padded_plan,
    plan_statistics,
    rows_per_step,
    step_plan,
)
from tulu_pipeline.training.batching.steps import row_budget_tokens
from tulu_pipeline.training.launching.launch import finetune
from tulu_pipeline.training.launching.launchers import rank_environment
from tulu_pipeline.training.tracking.record import read_steps

VOCABULARY = 4096
MODEL = {"hidden": 128, "layers": 6, "heads": 2, "feed_forward": 352}
PER_ROW = 4  # conversations of a padded micro-batch
SHARE_RANKS = (1, 2, 4, 8, 16)
CASES = ("step", "padded", "trl_padded", "trl_packed")
TAKEN = {"alpaca": 2000, "sharegpt:sample": 998}  # conversations at most
# Of each: conversations; mean and deviation of the logarithm of their lengths; share of tokens that are supervised.
RESEMBLING = ((2000, 4.6, 0.53, 0.57), (760, 6.9, 0.72, 0.77))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one training did in its counted steps.

    Attributes:
        data_wait_share: of the seconds, what the rank that waited longest in each step waited for its batches; None
            where that is not told.
    """

    supervised_tokens: int
    computed_tokens: int
    seconds: float
    losses: list[float]
    seconds_with_start: float
    data_wait_share: float | None = None

    @property
    def speed(self) -> float:
        """Supervised tokens per second."""
        return self.supervised_tokens / self.seconds


def write_real_tokens(folder: Path, mirror: Path, tokenizer: Path, longest: int) -> None:
    """The mirror's conversations, as the pipeline encodes them."""
    way = EncodeOptions(max_length_tokens=longest)
    by_dataset = real_conversations(mirror, tokenizer)
    loaded = load_tokenizer(tokenizer, tokenizer_mode="legacy_fast")
    with TokenWriter(folder, np.uint16, {}) as writer:
        for name, count in TAKEN.items():
            for number, row in enumerate(encode_many(by_dataset[name][:count], loaded, way)):
                if row.loss_mask[1:].any():
                    writer.write(f"{name}-{number}", row)


def write_synthetic_tokens(folder: Path, longest: int) -> None:
    """Random ids, with lengths and supervised shares like the real ones."""
    generator = np.random.default_rng(SEED)
    with TokenWriter(folder, np.uint16, {}) as writer:
        for part, (count, mean, deviation, supervised) in enumerate(RESEMBLING):
            for number, length in enumerate(generator.lognormal(mean, deviation, count)):
                tokens = int(np.clip(length, 16, longest))
                mask = np.zeros(tokens, dtype=np.uint8)
                mask[-round(supervised * tokens) :] = 1
                ids = generator.integers(4, VOCABULARY, tokens).astype(np.uint16)
                writer.write(f"{part}-{number}", Encoded(ids, mask, truncated=False))


def write_rows(path: Path, tokens: Path, positions: Any) -> None:
    """The conversations at these positions as TRL takes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened = open_tokens(tokens)
    rows = [opened[int(position)] for position in positions]
    ids = [row.astype(np.int64) for row, _ in rows]
    labels = [np.where(mask, row.astype(np.int64), IGNORED) for row, mask in rows]
    pq.write_table(pa.table({"input_ids": ids, "labels": labels}), path)


def run_ours(folder: Path, model: Path, tokens: Path, recipe: Recipe, profile: Profile) -> Run:
    """Through the product's launcher."""
    started = time.perf_counter()
    finetune(
        name=f"finetune[{profile.layout}]",
        recipe=recipe,
        tokens=[(tokens, 1)],
        model=model,
        out=folder / "out",
        aux=folder / "aux",
        work=folder / "work",
        ctx=RunContext(profile=profile, settings=read_settings()),
    )
    steps = list(read_steps(folder / "work" / "steps.jsonl"))
    seconds = sum(step.seconds for step in steps[1:])
    return Run(
        supervised_tokens=sum(step.supervised_tokens for step in steps[1:]),
        computed_tokens=sum(step.computed_tokens for step in steps[1:]),
        seconds=seconds,
        losses=[step.loss for step in steps],
        seconds_with_start=time.perf_counter() - started,
        data_wait_share=sum(step.data_seconds or 0.0 for step in steps[1:]) / seconds,
    )


def trl_settings(recipe: Recipe, profile: Profile, *, packed_rows: float | None) -> dict[str, Any]:
    """What SFTConfig is given; `packed_rows` in a step, None pads."""
    per_device = PER_ROW if packed_rows is None else 1
    rows = recipe.conversations_per_step if packed_rows is None else packed_rows
    return {
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "optim": "adamw_torch",
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip_norm,
        "max_length": recipe.max_length_tokens,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": max(1, round(rows / (per_device * profile.ranks))),
        "packing": packed_rows is not None,
        "train_sampling_strategy": "sequential" if packed_rows is None else "random",
        "ddp_backend": "gloo",
        "ddp_find_unused_parameters": False,
    } | ({"max_steps": recipe.max_steps} if packed_rows is None else {"num_train_epochs": 1, "packing_strategy": "bfd"})


def run_trl(folder: Path, model: Path, rows: Path, settings: dict[str, Any], profile: Profile) -> Run:
    """Through torchrun."""
    folder.mkdir(parents=True)
    job = {"model": str(model), "rows": str(rows), "folder": str(folder), "settings": settings}
    (folder / "job.json").write_text(json.dumps(job | {"threads": profile.threads_per_rank}))
    script = Path(__file__).with_name("peers") / "sft_trainer.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={profile.ranks}"]
    environment = os.environ | rank_environment(profile, "lo")
    started = time.perf_counter()
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [*torchrun, str(script), str(folder / "job.json")], env=environment, stdout=log, stderr=log
        )
    if done.returncode:
        sys.exit((folder / "log").read_text()[-4000:])
    ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(profile.ranks)]
    ended = ranks[0]["ended"]
    passes = [each for rank in ranks for step in rank["passes"][1:] for each in step]
    return Run(
        supervised_tokens=sum(supervised for _, _, supervised in passes),
        computed_tokens=sum(count * longest for count, longest, _ in passes),
        seconds=ended[-1] - ended[1],
        losses=ranks[0]["losses"],
        seconds_with_start=time.perf_counter() - started,
    )


def ideal_ratio(lengths: Lengths, recipe: Recipe, ranks: int, steps: range) -> float:
    """What the conversations of these steps allow over padding them."""
    orders = (step_order(len(lengths), recipe.conversations_per_step, recipe.seed, step) for step in steps)
    padded = plan_statistics(
        (padded_plan(each, ranks=ranks, conversations_per_row=PER_ROW) for each in orders), lengths
    )
    return 1.0 / padded.busy_share


def shares(lengths: Lengths, recipe: Recipe, budget_tokens: int) -> dict[str, dict[str, dict[str, float]]]:
    """Of a whole epoch in each layout, by ranks."""
    per_step = recipe.conversations_per_step
    steps = range(epoch_steps(len(lengths), per_step))
    orders = [step_order(len(lengths), per_step, recipe.seed, step) for step in steps]
    rows = global_rows(lengths, budget_tokens=recipe.max_length_tokens, seed=recipe.seed, epoch=0)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for ranks in SHARE_RANKS:
        in_step = rows_per_step(per_step, len(lengths), len(rows), multiple_of=ranks)
        plans = {
            "padded": [padded_plan(each, ranks=ranks, conversations_per_row=PER_ROW) for each in orders],
            "step": [step_plan(each, lengths, ranks=ranks, budget_tokens=budget_tokens) for each in orders],
            "global": [
                global_plan(rows, lengths, step=step, rows_per_step=in_step, ranks=ranks)
                for step in range(epoch_steps(len(rows), in_step))
            ],
        }
        found[str(ranks)] = {
            layout: {"useful": round(each.useful_share, 4), "busy": round(each.busy_share, 4)}
            for layout, made in plans.items()
            for each in [plan_statistics(made, lengths)]
        }
    return found


def ratio(repetitions: list[dict[str, Run]], name: str) -> float | None:
    """How many times as fast `step` is as another: the median over repetitions; None where that did not run."""
    if name not in repetitions[0]:
        return None
    return round(statistics.median(runs["step"].speed / runs[name].speed for runs in repetitions), 2)


def data_wait_shares(repetitions: list[dict[str, Run]]) -> dict[str, float]:
    """Of our runs: the share of their time that they waited for data, the median over repetitions."""
    shares = {name: [runs[name].data_wait_share for runs in repetitions] for name in repetitions[0]}
    told = {name: [share for share in its if share is not None] for name, its in shares.items()}
    return {name: round(statistics.median(its), 7) for name, its in told.items() if its}


def loss_difference(runs: dict[str, Run]) -> float:
    """Largest difference from the losses of `step`, as a share of the loss, of the runs over the same steps."""
    own = np.array(runs["step"].losses)
    others = [np.array(run.losses) for name, run in runs.items() if name != "trl_packed"]
    return max(float((np.abs(other - own) / own).max()) for other in others)


def prepare(home: Path, tokenizer: Path, longest: int) -> tuple[Path, Path, str]:
    """Write the model and the tokens: their folders, and what the conversations are."""
    model, tokens = home / "model", home / "tokens"
    tiny.write_model(model, name="perf", vocabulary=VOCABULARY, initializer_range=0.02, all_words=0, **MODEL)
    tokens.mkdir(parents=True)
    if not os.environ.get("TULU_MIRROR"):
        write_synthetic_tokens(tokens, longest)
        return model, tokens, "random ids, lengths like those of Alpaca and ShareGPT"
    mirror = Path(os.environ["TULU_MIRROR"]).resolve()
    train_tokenizer(mirror, tokenizer, VOCABULARY)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / file, model / file)
    write_real_tokens(tokens, mirror, tokenizer, longest)
    return model, tokens, "real conversations: " + ", ".join(TAKEN)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="of each training; the first is not counted")
    parser.add_argument("--repeat", type=int, default=2, help="of the four, in turn")
    parser.add_argument("--ranks", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--row-tokens", type=int, default=2048, help="tokens of a row of the layout `step`")
    parser.add_argument("--per-step", type=int, default=128, help="conversations of a step")
    parser.add_argument("--longest", type=int, default=2048, help="tokens of a conversation; the rest is cut")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="`step` and any of the others")
    parser.add_argument("--tokenizer", type=Path, default=Path(tempfile.gettempdir()) / f"tulu-perf-{VOCABULARY}")
    options = parser.parse_args()
    if options.steps < 2 or "step" not in options.cases:
        parser.error("two steps or more (the first is not counted), of `step` and what it is compared with")
    recipe = Recipe(
        max_steps=options.steps,
        conversations_per_step=options.per_step,
        max_length_tokens=options.longest,
        warmup_steps=1,
        dtype="fp32",
        loss_norm="token_mean",
        loss_micro_batch_conversations=1,
    )
    profile = Profile(
        ranks=options.ranks,
        micro_batch_conversations=PER_ROW,
        row_tokens=options.row_tokens,
        checkpoint_every_steps=0,
        threads_per_rank=max(1, len(os.sched_getaffinity(0)) // options.ranks),
    )
    repetitions: list[dict[str, Run]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        model, tokens, conversations = prepare(home, options.tokenizer, options.longest)
        lengths = open_tokens(tokens).lengths().astype(np.int64)
        orders = [step_order(len(lengths), options.per_step, recipe.seed, step) for step in range(options.steps)]
        positions = np.concatenate(orders)
        write_rows(home / "rows.parquet", tokens, positions)
        packed_rows = int(lengths[positions].sum()) / options.longest / options.steps
        settings = {
            "trl_padded": trl_settings(recipe, profile, packed_rows=None),
            "trl_packed": trl_settings(recipe, profile, packed_rows=packed_rows),
        }
        for repetition in range(options.repeat):
            runs: dict[str, Run] = {}
            for name in options.cases:
                its = home / f"{name}-{repetition}"
                if name in settings:
                    runs[name] = run_trl(its, model, home / "rows.parquet", settings[name], profile)
                else:
                    layout: Layout = "step" if name == "step" else "padded"
                    runs[name] = run_ours(its, model, tokens, recipe, replace(profile, layout=layout))
                print(f"{name}: {runs[name].speed:,.0f} supervised tokens/s in {runs[name].seconds:.1f} s", flush=True)
            repetitions.append(runs)
    default_rows = row_budget_tokens(recipe, replace(profile, row_tokens=0))
    simulated = shares(lengths, recipe, default_rows)
    ideal = ideal_ratio(lengths, recipe, options.ranks, range(1, options.steps))
    over_padded = ratio(repetitions, "trl_padded")
    waited = data_wait_shares(repetitions)
    result = {
        "ratio_vs_trl_padded": over_padded,
        "ratio_vs_trl_packed": ratio(repetitions, "trl_packed"),
        "ratio_vs_own_padded": ratio(repetitions, "padded"),
        "ideal_ratio": round(ideal, 2),
        "share_of_ideal": over_padded and round(over_padded / ideal, 2),
        "least_busy_share_to_16_ranks": min(each["step"]["busy"] for each in simulated.values()),
        "loss_difference": max(map(loss_difference, repetitions)),
        "data_wait_share": max(waited[name] for name in waited),
        "runs": {
            name: {
                "supervised_tokens_per_second": [round(runs[name].speed) for runs in repetitions],
                "supervised_tokens": repetitions[0][name].supervised_tokens,
                "computed_tokens": repetitions[0][name].computed_tokens,
                "seconds": [round(runs[name].seconds, 3) for runs in repetitions],
                "seconds_with_start": [round(runs[name].seconds_with_start, 1) for runs in repetitions],
                "data_wait_share": waited.get(name),
            }
            for name in options.cases
        },
        "shares": simulated,
        "settings": {
            "conversations": conversations,
            "number": len(lengths),
            "mean_tokens": round(float(lengths.mean()), 1),
            "rows_of_shares": default_rows,
            "in_counted_steps": int(sum(map(len, orders[1:]))),
            "model": MODEL | {"vocabulary": VOCABULARY, "dtype": recipe.dtype},
            "ranks": options.ranks,
            "threads_per_rank": profile.threads_per_rank,
            "ours": {"zero_stage": profile.zero_stage, "row_tokens": options.row_tokens, "per_row": PER_ROW},
            "trl": settings,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
