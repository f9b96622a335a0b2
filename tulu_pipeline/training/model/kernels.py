"""Which of several ways to compute the same is taken, by what the machine and the model can; none is required."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tulu_pipeline.training.engine import optimizer_name
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.model.attention import has_varlen, use_packed_attention
from tulu_pipeline.training.model.fused_layers import FusedLayers, use_fused_layers
from tulu_pipeline.training.model.loading import DTYPES
from tulu_pipeline.training.model.output_head import OutputHead, chunking_head


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What computes a training.

    Attributes:
        attention: `varlen` (torch's flash attention over rows of many lengths), `per conversation`, or, in the layout
            `padded`, transformers' name of the model's own.
        loss: `chunked` (`head` takes it, for some tokens at a time), or `whole` (from all logits).
        head: the model's, where the loss is chunked.
        layers: Liger's norms, rotary embedding and feed-forward, where they are in place of the model's own.
        optimizer: torch's `AdamW`, or `DeepSpeedCPUAdam`, compiled, for offloaded states.
    """

    attention: str
    loss: str
    head: OutputHead | None
    layers: FusedLayers | None
    optimizer: str

    def named(self) -> dict[str, str]:
        """Their names, for the record."""
        return {
            "attention": self.attention,
            "layers": "torch" if self.layers is None else "liger",
            "loss": self.loss,
            "optimizer": self.optimizer,
        }


def choose_kernels(engine: Any, job: TrainingJob) -> Kernels:
    """Give the engine's model the kernels that it is trained with; all ranks call this together.

    Each is compared with the model's own way on a probe first. The profile's `kernels` says how many of them: see
    `Profile`.

    Raises:
        BadInput: the layout is `step`, and conversations of a row would see each other in this model.
    """
    model, wanted = engine.module, job.profile.kernels
    fused = wanted != "torch"
    # These two are compared while the attention is the model's own.
    head = chunking_head(model, engine, engine.device) if wanted in ("auto", "head") else None
    layers = use_fused_layers(model, engine, engine.device) if wanted == "auto" else None
    if job.profile.layout == "step":
        use_packed_attention(model, engine, engine.device, fused=fused)
        varlen = fused and _every_head_fits(model, engine.device, DTYPES[job.recipe.dtype])
        attention = "varlen" if varlen else "per conversation"
    else:
        attention = str(model.config._attn_implementation)
    return Kernels(
        attention=attention,
        loss="chunked" if head is not None else "whole",
        head=head,
        layers=layers,
        optimizer=optimizer_name(engine),
    )


def _every_head_fits(model: Any, device: torch.device | str, dtype: torch.dtype) -> bool:
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain = not getattr(config, "attention_dropout", 0.0) and not getattr(config, "sliding_window", None)
    return plain and has_varlen(device, dtype, size, size)
