"""The model that is trained: the base model's weights, with what the recipe adds to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import deepspeed as transformers_deepspeed

from tulu_pipeline.tokens.tokenizer import special_tokens
from tulu_pipeline.training.job import TrainingJob

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What is trained, and how its text becomes ids.

    Attributes:
        model: of transformers.
        tokenizer: of transformers, with a pad token.
        pad_is_new: whether its files name none, so that it was added here.
    """

    model: Any
    tokenizer: Any
    pad_is_new: bool


def load_model(job: TrainingJob) -> LoadedModel:
    """The base model; where its files name no pad token, `<pad>` is added, and the embeddings grow if they must.

    As in the original: LLaMA's grow, Pythia's have room. For GPT-NeoX transformers would take `<|padding|>`.
    """
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    zero3 = _Zero3Config(job.deepspeed) if job.profile.zero_stage == 3 else None
    if zero3 is not None:
        # Parameters are then split over the ranks as they are loaded; no rank ever holds the whole model.
        transformers_deepspeed.set_hf_deepspeed_config(zero3)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=DTYPES[job.recipe.dtype], local_files_only=True)
    pad_is_new = not special_tokens(job.model)["pad_token"]
    if pad_is_new:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    transformers_deepspeed.unset_hf_deepspeed_config()
    return LoadedModel(model=model, tokenizer=tokenizer, pad_is_new=pad_is_new)


class _Zero3Config:
    """What transformers asks to know that it loads under ZeRO-3; its own class for it would need `accelerate`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def is_zero3(self) -> bool:
        return True
