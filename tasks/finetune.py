"""Finetune: a base model and the tokens of a mixture to a checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.export.model_facts import ModelFacts
from tulu_pipeline.specs.recipe import Recipe

if TYPE_CHECKING:
    from tulu_pipeline.export.model_card import Counts, ModelCard, Step

CARD = "README.md"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneParams:
    """What is trained; how many ranks and which ZeRO stage is the profile's.

    Attributes:
        recipe: how.
        components: name and repeat of each component, in the order of the mixture; their tokens are the inputs
            `tokens_0`, `tokens_1`, ….
        facts: for the model card, and to be compared with the model's files; no part of the key.
    """

    recipe: Recipe
    components: tuple[tuple[str, int], ...]
    facts: ModelFacts | None = execution_field(default=None)


def run_finetune(job: Job[FinetuneParams], ctx: RunContext) -> Metrics:
    """Write a Hugging Face checkpoint; the record of the training and the model card go to `aux`."""
    from tulu_pipeline.artifacts.provenance import packages
    from tulu_pipeline.export.model_card_text import render_model_card
    from tulu_pipeline.profile import device_name, has_gpu
    from tulu_pipeline.training.checks import check_folders
    from tulu_pipeline.training.launching.launch import finetune

    tokens = [job.input(f"tokens_{index}") for index in range(len(job.params.components))]
    components = [(folder, repeat) for folder, (_, repeat) in zip(tokens, job.params.components, strict=True)]
    base = job.params.facts.base if job.params.facts else None
    notes = check_folders(
        job.params.recipe,
        ctx.profile,
        name=job.name,
        model=job.input("model"),
        components=components,
        device=device_name() if has_gpu() else "",
        context_tokens=base.context_tokens if base else 0,
        special_tokens=base.special_tokens if base else None,
        tuned_rows=base.tuned_embedding_rows if base else None,
    )
    for note in notes:
        log.info("%s: %s", job.name, note)
    metrics = finetune(
        name=job.name,
        recipe=job.params.recipe,
        tokens=components,
        model=job.input("model"),
        out=job.out,
        aux=job.aux,
        work=job.work,
        ctx=ctx,
        key=job.key,
    )
    metrics = {"device": device_name()} | metrics | {"notes": [*notes, *metrics["notes"]]}
    card = model_card(job.name, job.key, job.params, tokens=tokens, aux=job.aux, metrics=metrics, packages=packages())
    (job.aux / CARD).write_text(render_model_card(card), encoding="utf-8")
    return metrics


def model_card(
    name: str,
    key: str,
    params: FinetuneParams,
    *,
    tokens: list[Path],
    aux: Path,
    metrics: Metrics,
    packages: Mapping[str, str],
) -> ModelCard:
    """What can be said of a finished training.

    Args:
        name: the artifact's.
        key: the artifact's.
        params: what was trained.
        tokens: folder of each component's tokens.
        aux: folder with the record of the training.
        metrics: what the training reported.
        packages: name to version, of what trained it.
    """
    from tulu_pipeline.export.model_card import ModelCard

    return ModelCard(
        artifact=name,
        key=key,
        stage_version=FINETUNE.version,
        facts=params.facts,
        recipe=params.recipe,
        components=params.components,
        counts=tuple(map(_counts, tokens)),
        metrics=metrics,
        steps=_curve(aux),
        packages=packages,
    )


def _counts(tokens: Path) -> Counts:
    from tulu_pipeline.export.model_card import Counts

    info = json.loads((tokens / "tokens.json").read_text(encoding="utf-8"))
    return Counts(conversations=info["rows"], tokens=info["tokens"], supervised_tokens=info["supervised_tokens"])


def _curve(aux: Path) -> list[Step]:
    from tulu_pipeline.export.model_card import Step
    from tulu_pipeline.training.tracking.record import STEPS_FILE, read_steps

    return [
        Step(step=record.step, loss=record.loss, learning_rate=record.learning_rate)
        for record in read_steps(aux / STEPS_FILE)
    ]


# Releases of torch are no part of the key: rounding differs from one to the next as it does from run to run, and
# nobody wants weeks of training repeated for a bug-fix release. The manifest's metrics and log say what it ran on.
FINETUNE = Stage(name="finetune", version=3, params=FinetuneParams, run=run_finetune, deterministic=False, slot="gpu")
