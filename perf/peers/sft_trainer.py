"""TRL's SFTTrainer as one of its users would call it: a rank of `torchrun perf/peers/sft_trainer.py job.json`.

Data-parallel (torch's DDP) over gloo on the CPU. Rows come tokenized, with labels, in the order in which they are to be
trained on. Each rank leaves what it computed in each step as `rank-<n>.json` in the job's folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

IGNORED = -100


class Steps(TrainerCallback):
    """When each step ended, and what its passes held: (rows, tokens of a row with padding, supervised tokens)."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.passes: list[list[tuple[int, int, int]]] = [[]]
        self.losses: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ended.append(time.perf_counter())
        self.passes.append([])

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


class Counting(SFTTrainer):  # type: ignore[misc]
    """Counts what goes through; its computing is TRL's."""

    steps: Steps

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        rows, longest = inputs["input_ids"].shape
        supervised = int((inputs["labels"][:, 1:] != IGNORED).sum())
        self.steps.passes[-1].append((rows, longest, supervised))
        return super().training_step(model, inputs, num_items_in_batch)


def main() -> None:
    """Train as the job says."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    datasets.disable_progress_bars()
    steps = Steps()
    trainer = Counting(
        AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, attn_implementation="sdpa"),
        SFTConfig(
            output_dir=job["folder"],
            disable_tqdm=True,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            **job["settings"],
        ),
        train_dataset=datasets.Dataset.from_parquet(job["rows"], cache_dir=f"{job['folder']}/cache"),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[steps],
    )
    trainer.steps = steps
    trainer.train()
    found = {"ended": steps.ended, "passes": [each for each in steps.passes if each], "losses": steps.losses}
    (Path(job["folder"]) / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
