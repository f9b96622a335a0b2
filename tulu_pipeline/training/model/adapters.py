"""Low-rank adapters beside the linear layers of a frozen model, and what they come to when they are merged.

Shapes: O rows and I columns of a layer's weight, R rank of its adapter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import Linear

from tulu_pipeline.errors import unknown_name
from tulu_pipeline.specs.recipe import Lora

_NAME = "default"  # peft's for an adapter without one
_PREFIX = "base_model.model."  # which peft puts before the names of the model that it wraps


def add_adapters(model: Any, lora: Lora, seed: int) -> Any:
    """The model with everything frozen but new adapters, which change nothing yet: `B` is zero.

    They have the type of the model's other weights; DeepSpeed keeps what is trained in fp32 beside them.

    Args:
        model: of transformers, with all its embeddings: adapters of a model that grows later fit no base.
        lora: which layers, and how large.
        seed: draws `A`, whatever was drawn before.

    Raises:
        NotFound: a target is the name of no linear layer of the model.
    """
    from peft import LoraConfig, get_peft_model  # here: it takes seconds, and most trainings have no adapters

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_layers(model, lora),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    # An absolute path of this machine says nothing on another.
    adapted.peft_config[_NAME].base_model_name_or_path = ""
    return adapted


def target_layers(model: Any, lora: Lora) -> list[str]:
    """Names of the layers that get an adapter, as far as they differ: `q_proj` is one in every block.

    Raises:
        NotFound: the recipe names a layer that the model has not.
    """
    head = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module is not head
    }
    for name in lora.target_modules:
        if name not in found:
            raise unknown_name(f"linear layer of `{model.config.model_type}`", name, sorted(found), "recipe.lora")
    return sorted(lora.target_modules or found)


def merged_state(model: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the model without adapters that computes what the adapted one does.

    Each is computed in fp32 and rounded once: `W + alpha / rank * B A`, with the product of `B` (O x R) and `A`
    (R x I). Where `W` is 4-bit it is the one that the adapters were trained beside: what its four bits stand for, in
    the type that it was multiplied in. The layers of a quantized model that have no adapter are those weights too.

    Args:
        model: from `add_adapters`.
        state: its whole state, gathered from the ranks.
    """
    from peft.tuners.lora import LoraLayer

    merged = {
        _plain(name): value for name, value in state.items() if ".lora_" not in name and not _is_scale(_plain(name))
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            layer, adapter = module.get_base_layer(), module
        elif name.endswith(".base_layer"):
            continue
        else:
            layer, adapter = module, None
        weight = f"{_plain(name)}.weight"
        if hasattr(getattr(layer, "weight", None), "quant_state"):
            merged[weight] = _dequantized(layer).cpu()
        if adapter is not None:
            a_RI, b_OR = (state[f"{name}.{part}.{_NAME}.weight"].float() for part in ("lora_A", "lora_B"))
            update_OI = adapter.scaling[_NAME] * (b_OR @ a_RI).cpu()
            merged[weight] = (merged[weight].float().cpu() + update_OI).to(merged[weight].dtype)
    return merged


def save_adapter(model: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the adapters alone, as peft opens them on the base model.

    Args:
        model: from `add_adapters`.
        state: its whole state, gathered from the ranks.
        folder: for them.
    """
    own = {name: value.cpu() for name, value in state.items() if ".lora_" in name}
    model.save_pretrained(folder, state_dict=own, save_embedding_layers=False)
    (folder / "README.md").unlink()  # peft's form of a model card, with nothing filled in but this machine's paths


def _plain(name: str) -> str:
    """What a weight of the adapted model is called in the model without adapters."""
    return name.removeprefix(_PREFIX).replace(".base_layer.", ".")


def _is_scale(name: str) -> bool:
    """Whether it belongs to a 4-bit weight: a block's scale, the table of its values."""
    return ".weight." in name


def _dequantized(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
