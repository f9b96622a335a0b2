"""How a model is finetuned: identity only. Ranks, ZeRO stage and micro-batch are the profile's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from tulu_pipeline.artifacts.canonical import added_field, execution_field
from tulu_pipeline.chat.options import LossSpan as LossSpan
from tulu_pipeline.chat.options import SpecialInText, Template
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.checks import check_choices

LossNorm = Literal["micro_mean", "token_mean"]
BatchPlan = Literal["conversation", "global"]
Quantization = Literal["none", "nf4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters instead of all weights; with a quantized base it is QLoRA. The defaults are the original's.

    Attributes:
        rank: of the update of each weight.
        alpha: the update is scaled by `alpha / rank`.
        dropout: of what goes into the adapters.
        target_modules: names of the layers that get one; empty for every linear layer but the output head.
        quantization: of the frozen base weights: `none`, or 4-bit NormalFloat (`nf4`).
        double_quantization: whether the scales of `nf4` are quantized too.
    """

    rank: int = 64
    alpha: float = 16.0
    dropout: float = 0.1
    target_modules: tuple[str, ...] = ()
    quantization: Quantization = "none"
    double_quantization: bool = True

    def __post_init__(self) -> None:
        check_choices(self, "recipe.lora")
        _check_finite(self, "recipe.lora")
        if self.rank < 1:
            raise BadInput(f"rank is {self.rank}", "recipe.lora", "write at least 1, the original's is 64")
        if self.alpha <= 0:
            raise BadInput(f"alpha is {self.alpha}", "recipe.lora", "write a positive number, the original's is 16")
        if not 0 <= self.dropout < 1:
            raise BadInput(f"dropout is {self.dropout}", "recipe.lora", "write a share between 0 and 1")


# What numbers may be, and what to write; None is left out.
_AT_LEAST_1 = (lambda value: value >= 1, "write at least 1")
_AT_LEAST_0 = (lambda value: value >= 0, "write 0 or more")
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "learning_rate": (lambda value: value > 0, "write a positive number, the paper's is 2e-5"),
    "final_learning_rate_share": (lambda value: 0 <= value <= 1, "write a share from 0 to 1"),
    "epochs": (lambda value: value > 0, "write a positive number, the paper's is 2"),
    "max_steps": (lambda value: value >= 1, "write at least 1, or None"),
    "conversations_per_step": _AT_LEAST_1,
    "warmup_ratio": (lambda value: 0 <= value < 1, "write a share between 0 and 1"),
    "warmup_steps": (lambda value: value >= 0, "write 0 or more, or None"),
    "weight_decay": _AT_LEAST_0,
    "adam_beta1": (lambda value: 0 <= value < 1, "write a number from 0 to below 1, the usual one is 0.9"),
    "adam_beta2": (lambda value: 0 <= value < 1, "write a number from 0 to below 1, the usual one is 0.999"),
    "adam_epsilon": (lambda value: value > 0, "write a positive number, the usual one is 1e-8"),
    "clip_norm": (lambda value: value >= 0, "write a positive number, or 0 not to clip"),
    "max_length_tokens": (lambda value: value >= 8, "write at least 8"),
    "loss_micro_batch_conversations": _AT_LEAST_1,
    "seed": (lambda value: 0 <= value < 2**63, "write a number from 0 to 2^63 - 1"),
    "rows_per_step": (lambda value: value >= 1, "write at least 1, or None"),
    "held_out_conversations": _AT_LEAST_0,
    "held_out_every_steps": _AT_LEAST_1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The paper's recipe by default (Appendix, and the original's scripts).

    Attributes:
        learning_rate: peak; linear warm-up from 0, then linear decay to `final_learning_rate_share` of it.
        epochs: passes over the mixture; fractional is fine. `max_steps` stops earlier, the schedule then spans it.
        conversations_per_step: global batch over all ranks and accumulation.
        warmup_ratio: share of the steps; `warmup_steps` wins where given.
        max_length_tokens: longer conversations are cut on the right.
        loss_span: what is supervised: content, end mark and what stands before the next user tag (`tulu1`),
            or content and end mark (`eos`).
        loss_norm: mean over a virtual micro-batch's supervised tokens, then over micro-batches (`micro_mean`, the
            original's); or one mean over the step's supervised tokens (`token_mean`).
        loss_micro_batch_conversations: size of the virtual micro-batch of `micro_mean`.
        dtype: weights' compute type.
        seed: draws the order of conversations and dropout.
        special_in_text: whether a control token typed in a message stays text (`literal`) or becomes the control
            id, as in the original (`hf`).
        template: the chat format, in training and when the model is asked: the paper's (`tulu`), or the chat template
            in the tokenizer's own files (`own`).
        batch_plan: what a step is made of: so many conversations (`conversation`), or rows filled to the brim over the
            whole mixture (`global`), so that a step holds as many conversations on average only.
        rows_per_step: of the plan `global`: rows of `max_length_tokens` in a step; None takes as many as hold
            `conversations_per_step` on average.
        lora: adapters to train instead of all weights; they are merged into the exported checkpoint.
        held_out_conversations: conversations of the mixture that are not trained on; the loss over them is recorded.
        held_out_every_steps: how often it is; and after the last step.
    """

    learning_rate: float = 2e-5
    final_learning_rate_share: float = 0.0
    epochs: float = 2.0
    max_steps: int | None = None
    conversations_per_step: int = 128
    warmup_ratio: float = 0.03
    warmup_steps: int | None = None
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    clip_norm: float = 1.0
    max_length_tokens: int = 2048
    loss_span: LossSpan = "tulu1"
    loss_norm: LossNorm = "micro_mean"
    loss_micro_batch_conversations: int = 2
    dtype: Literal["bf16", "fp32"] = "bf16"
    seed: int = 42
    special_in_text: SpecialInText = added_field(default="literal")
    template: Template = added_field(default="tulu")
    batch_plan: BatchPlan = added_field(default="conversation")
    rows_per_step: int | None = added_field(default=None)
    lora: Lora | None = added_field(default=None)
    held_out_conversations: int = added_field(default=0)
    held_out_every_steps: int = execution_field(default=100)

    def __post_init__(self) -> None:
        def refuse(what: str, fix: str) -> None:
            raise BadInput(what, "recipe", fix)

        check_choices(self, "recipe")
        _check_finite(self, "recipe")
        for name, (allowed, fix) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not allowed(value):
                refuse(f"{name} is {value}", fix)
        if self.conversations_per_step % self.loss_micro_batch_conversations:
            refuse(
                f"conversations_per_step {self.conversations_per_step} is no multiple of "
                f"loss_micro_batch_conversations {self.loss_micro_batch_conversations}",
                "choose a divisor, or loss_norm=`token_mean` with loss_micro_batch_conversations=1",
            )
        if self.rows_per_step is not None and self.batch_plan != "global":
            refuse("rows_per_step says nothing about a step of conversations", "write batch_plan=`global`, or leave it")


def _check_finite(spec: Recipe | Lora, where: str) -> None:
    for field in fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{field.name} is {value}", where, "write a finite number")
