"""The model that is trained: the base model's weights, with the rows and adapters that the recipe adds to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.integrations import deepspeed as transformers_deepspeed

from tulu_pipeline.errors import BadInput
from tulu_pipeline.lacking_weights import refuse_lacking
from tulu_pipeline.tokens.tokenizer import special_tokens
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.model.adapters import add_adapters

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What is trained, and how its text becomes ids.

    Attributes:
        model: of transformers; of peft where the recipe trains adapters, and then these alone want gradients.
        tokenizer: of transformers, with a pad token.
        pad_is_new: whether its files name none, so that it was added here.
    """

    model: Any
    tokenizer: Any
    pad_is_new: bool


def load_model(job: TrainingJob) -> LoadedModel:
    """The base model; where its files name no pad token, `<pad>` is added, and the embeddings grow if they must.

    As in the original: LLaMA's grow, Pythia's have room. For GPT-NeoX transformers would take `<|padding|>`. Adapters
    come after that; the original let the embeddings grow under adapters that were there.

    Raises:
        NotFound: the recipe wants adapters of layers that the model has not.
        BadInput: a tensor that no file has, or 4-bit weights under ZeRO-3.
    """
    recipe, profile = job.recipe, job.profile
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    pad_is_new = not special_tokens(job.model)["pad_token"]
    with _split_over_ranks(job):
        model, loaded = AutoModelForCausalLM.from_pretrained(
            job.model,
            dtype=DTYPES[recipe.dtype],
            local_files_only=True,
            output_loading_info=True,
            **_quantized(job),
        )
        refuse_lacking(loaded["missing_keys"], job.model)
        if pad_is_new:
            tokenizer.add_special_tokens({"pad_token": "<pad>"})
            if len(tokenizer) > model.config.vocab_size:
                model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if recipe.lora is not None and recipe.lora.quantization != "none":
        _keep_layout(model)
    model.config.pad_token_id = tokenizer.pad_token_id
    if profile.gradient_checkpointing:
        # The other kind wants inputs that need gradients, which embeddings beside adapters do not give.
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if recipe.lora is not None:
        model = add_adapters(model, recipe.lora, recipe.seed)
    return LoadedModel(model=model, tokenizer=tokenizer, pad_is_new=pad_is_new)


@contextmanager
def _split_over_ranks(job: TrainingJob) -> Iterator[None]:
    """Under ZeRO-3, split what is loaded meanwhile over the ranks; no rank ever holds the whole model."""
    config = _Zero3Config(job.deepspeed) if job.profile.zero_stage == 3 else None  # transformers holds it weakly
    if config is not None:
        transformers_deepspeed.set_hf_deepspeed_config(config)
    try:
        yield
    finally:
        transformers_deepspeed.unset_hf_deepspeed_config()


def _quantized(job: TrainingJob) -> dict[str, Any]:
    """What transformers is told for 4-bit weights of every linear layer but the output head."""
    lora = job.recipe.lora
    if lora is None or lora.quantization == "none":
        return {}
    if job.profile.zero_stage == 3:
        raise BadInput(
            "ZeRO-3 cannot split 4-bit weights over the ranks",
            f"profile `{job.profile.name}`",
            "write zero_stage = 2: each rank then holds them whole, in a quarter of bf16's memory",
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=lora.quantization,
        bnb_4bit_use_double_quant=lora.double_quantization,
        bnb_4bit_compute_dtype=DTYPES[job.recipe.dtype],
    )
    here = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": here}}


def _keep_layout(model: Any) -> None:
    """Keep 4-bit weights as they are read.

    On a CPU with bfloat16 instructions bitsandbytes would lay them out anew in the first pass without gradients (the
    check that conversations are isolated is one), and passes through that layout give no gradients any more.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


class _Zero3Config:
    """What transformers asks to know that it loads under ZeRO-3; its own class for it would need `accelerate`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def is_zero3(self) -> bool:
        return True
