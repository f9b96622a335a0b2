"""Recover: a tuned checkpoint from its weight diff and the base model it was made with."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.options import Template
from tulu_pipeline.specs.model import WeightDiff


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverParams:
    """What is known of the diff.

    Attributes:
        diff: its arithmetic, and what tells that the base is the right one.
        template: the chat format of the checkpoint's tokenizer.
    """

    diff: WeightDiff
    template: Template


def run_recover(job: Job[RecoverParams], ctx: RunContext) -> Metrics:
    """Write the sum of the inputs `base` and `diff` as a checkpoint, and what was seen of it as `aux/recovered.json`.

    The input `tokenizer`, where there is one, is the checkpoint's.

    Raises:
        BadInput: the diff is not one on this base, or files of a model are missing or broken.
    """
    from tulu_pipeline.weights.recover import recover

    metrics = recover(
        base=job.input("base"),
        diff=job.input("diff"),
        tokenizer=job.inputs.get("tokenizer"),
        out=job.out,
        spec=job.params.diff,
        template=job.params.template,
        report=lambda done, total: ctx.progress(job.name, done, total, "B"),
    )
    (job.aux / "recovered.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics


RECOVER = Stage(name="recover", version=1, params=RecoverParams, run=run_recover)
