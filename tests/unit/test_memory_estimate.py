"""Memory estimates against tensors that are really kept: by autograd, and at the peak of a pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Lora, Recipe
from tulu_pipeline.training.batching.batches import MicroBatch
from tulu_pipeline.training.batching.plans import row_boundaries
from tulu_pipeline.training.estimates.memory import activation_bytes
from tulu_pipeline.training.estimates.shape import model_shape

# Sizes that are no multiples of each other, so that a term that is missing cannot hide behind another.
_SMALL: dict[str, Any] = {"vocab_size": 150, "hidden_size": 60, "num_hidden_layers": 3, "num_attention_heads": 6}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_SMALL, "model_type": "llama", "intermediate_size": 100},
    "llama, grouped queries": {**_SMALL, "model_type": "llama", "intermediate_size": 100, "num_key_value_heads": 2},
    "opt": {**_SMALL, "model_type": "opt", "ffn_dim": 100, "word_embed_proj_dim": 60},
    "gpt_neox": {**_SMALL, "model_type": "gpt_neox", "intermediate_size": 100},
}
LENGTHS = (40, 37)

Case = tuple[str, Recipe, Profile]


def cases() -> Iterator[Any]:
    for name in CONFIGS:
        for dtype in ("bf16", "fp32"):
            for layout in ("step", "padded"):
                case = (name, Recipe(dtype=dtype), Profile(layout=layout, micro_batch_conversations=2))
                yield pytest.param(case, id=f"{name}, {dtype}, {layout}")
    for name in ("llama", "opt"):
        checkpointed = (name, Recipe(), Profile(gradient_checkpointing=True))
        yield pytest.param(checkpointed, id=f"{name}, gradient checkpointing")
    for dropout in (0.0, 0.1):
        for targets in ((), ("q_proj", "v_proj")):
            lora = Lora(rank=7, dropout=dropout, target_modules=targets)
            case = ("llama", Recipe(lora=lora), Profile())
            yield pytest.param(case, id=f"llama, adapters on {', '.join(targets) or 'all'}, dropout {dropout}")


@pytest.mark.parametrize("case", list(cases()))
def test_activations_are_the_tensors_that_autograd_keeps(case: Case) -> None:
    name, recipe, profile = case
    batch = batch_of(profile)
    kept, estimated = [], []
    for layers in (3, 4):
        shape = replace(model_shape(CONFIGS[name]), layers=layers)
        log_probabilities = 4 * (sum(LENGTHS) - len(LENGTHS)) * shape.vocabulary
        kept.append(kept_bytes(build(case, layers), batch) - log_probabilities)
        estimated.append(
            activation_bytes(shape, recipe, profile, batch.input_ids.size, cuda=False, between_passes=True)
        )
    assert kept[1] - kept[0] == pytest.approx(estimated[1] - estimated[0], rel=0.01), "of one block"
    # Before the first adapter nothing has a gradient: what a block would keep there it does not.
    spared = 0.12 if recipe.lora else 0.02
    assert kept[0] == pytest.approx(estimated[0], rel=spared)


def build(case: Case, layers: int) -> Any:
    """The model of a case, ready to train."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tulu_pipeline.training.model.attention import PACKED

    name, recipe, profile = case
    rest = {key: value for key, value in CONFIGS[name].items() if key != "model_type"}
    config = AutoConfig.for_model(CONFIGS[name]["model_type"], **rest | {"num_hidden_layers": layers})
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[recipe.dtype]
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if profile.layout == "step":
        model.set_attn_implementation(PACKED)
    if profile.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if recipe.lora is not None:
        from peft import LoraConfig, get_peft_model

        lora = recipe.lora
        targets = list(lora.target_modules) or "all-linear"
        adapters = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, adapters, autocast_adapter_dtype=False)
    return model.train()


def batch_of(profile: Profile) -> MicroBatch:
    """Two conversations, end to end or under each other; all that can be is supervised."""
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, 150, length) for length in LENGTHS]
    if profile.layout == "step":
        starts = row_boundaries(np.array(LENGTHS))
        weights = np.ones((1, sum(LENGTHS)), dtype=np.float32)
        weights[0, starts[:-1]] = 0.0
        return MicroBatch(input_ids=np.concatenate(rows)[None], weights=weights, attention_mask=None, boundaries=starts)
    ids = np.zeros((len(rows), max(LENGTHS)), dtype=np.int64)
    mask, weights = np.zeros_like(ids), np.zeros(ids.shape, dtype=np.float32)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)], weights[place, 1 : len(row)] = row, 1, 1.0
    return MicroBatch(input_ids=ids, weights=weights, attention_mask=mask, boundaries=None)


def kept_bytes(model: Any, batch: MicroBatch) -> int:
    """Bytes that autograd keeps of a forward pass with its loss, each storage once, the weights themselves not."""
    import torch

    from tulu_pipeline.training.model.loss import micro_batch_loss

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = micro_batch_loss(model, batch, "cpu")
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())
