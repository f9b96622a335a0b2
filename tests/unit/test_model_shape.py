"""Shapes counted from a config against the models that transformers builds from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flows.catalog import FAMILIES
from tulu_pipeline.errors import NotFound
from tulu_pipeline.specs.model import PretrainedModel
from tulu_pipeline.training.estimates.flops import flops_per_token, peak_flops, training_flops
from tulu_pipeline.training.estimates.shape import ModelShape, known_architectures, model_shape

_SMALL: dict[str, Any] = {"vocab_size": 101, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_SMALL, "model_type": "llama", "intermediate_size": 40},
    "llama, grouped queries, tied": {
        **_SMALL,
        "model_type": "llama",
        "intermediate_size": 40,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "llama, biases, wide heads": {
        **_SMALL,
        "model_type": "llama",
        "intermediate_size": 40,
        "num_key_value_heads": 3,
        "head_dim": 10,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "mistral": {**_SMALL, "model_type": "mistral", "intermediate_size": 40, "num_key_value_heads": 2},
    "qwen2": {**_SMALL, "model_type": "qwen2", "intermediate_size": 40, "num_key_value_heads": 2},
    "qwen3": {**_SMALL, "model_type": "qwen3", "intermediate_size": 40, "num_key_value_heads": 2},
    "olmo2": {**_SMALL, "model_type": "olmo2", "intermediate_size": 40, "num_key_value_heads": 2},
    "opt": {**_SMALL, "model_type": "opt", "ffn_dim": 40, "word_embed_proj_dim": 24, "max_position_embeddings": 32},
    "opt, narrow embeddings, norm after": {
        **_SMALL,
        "model_type": "opt",
        "ffn_dim": 40,
        "word_embed_proj_dim": 12,
        "do_layer_norm_before": False,
        "max_position_embeddings": 32,
    },
    "opt, untied, bare": {
        **_SMALL,
        "model_type": "opt",
        "ffn_dim": 40,
        "word_embed_proj_dim": 24,
        "tie_word_embeddings": False,
        "enable_bias": False,
        "layer_norm_elementwise_affine": False,
        "max_position_embeddings": 32,
    },
    "gpt_neox": {**_SMALL, "model_type": "gpt_neox", "intermediate_size": 40},
    "gpt_neox, tied, no biases": {
        **_SMALL,
        "model_type": "gpt_neox",
        "intermediate_size": 40,
        "tie_word_embeddings": True,
        "attention_bias": False,
    },
}


def build(config: dict[str, Any], device: str = "meta") -> Any:
    """The model; on torch's device `meta` it takes no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    rest = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **rest))


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_that_transformers_builds(name: str) -> None:
    model = build(CONFIGS[name])
    assert model_shape(CONFIGS[name]).parameters == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_written_by_transformers_has_the_same_shape(name: str) -> None:
    written = build(CONFIGS[name]).config.to_dict()
    assert model_shape(written).parameters == model_shape(CONFIGS[name]).parameters


@pytest.mark.parametrize("name", CONFIGS)
def test_linear_layers_are_those_of_the_model_by_name_and_size(name: str) -> None:
    from torch.nn import Linear

    shape = model_shape(CONFIGS[name])
    found = sorted(
        (path.rpartition(".")[2], each.in_features, each.out_features, each.bias is not None)
        for path, each in build(CONFIGS[name]).named_modules()
        if isinstance(each, Linear)
    )
    named = [*shape.linears * shape.layers, *shape.outside, shape.head]
    assert found == sorted((each.name, each.inputs, each.outputs, each.bias) for each in named)


def test_every_architecture_that_is_known_is_compared() -> None:
    assert {config["model_type"] for config in CONFIGS.values()} == set(known_architectures())


def test_an_unknown_architecture_has_no_shape() -> None:
    with pytest.raises(NotFound, match="no architecture named `mixtral`"):
        model_shape({"model_type": "mixtral"})


@pytest.mark.parametrize("name", ["llama", "llama, grouped queries, tied", "opt", "gpt_neox"])
def test_matrix_products_of_the_forward_pass_are_those_torch_counts(name: str) -> None:
    """Torch counts attention over all pairs of tokens, so its causal half is taken off."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    length = 16
    shape = model_shape(CONFIGS[name])
    model = build(CONFIGS[name], "cpu")
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False)
    all_pairs = shape.layers * 4 * shape.heads * shape.head_size * length**2
    causal = all_pairs * (length + 1) / (2 * length)
    assert training_flops(shape, [length]) == 3 * (counter.get_total_flops() - all_pairs + causal)


def test_flops_of_a_set_are_the_sum_of_its_conversations() -> None:
    shape = model_shape(CONFIGS["llama"])
    assert training_flops(shape, [5, 9, 2]) == sum(training_flops(shape, [each]) for each in (5, 9, 2))
    assert training_flops(shape, np.array([5, 9, 2])) < training_flops(shape, [16])
    assert flops_per_token(shape, 9) == training_flops(shape, [9]) / 9


def test_llama_7b_takes_six_flops_per_weight_and_token_and_attention_on_top() -> None:
    shape = llama_7b()
    assert shape.parameters == 6_738_415_616
    six = 6 * (shape.parameters - shape.embedding_parameters)
    assert training_flops(shape, [2048]) / 2048 / six == pytest.approx(1.04, abs=0.005)


def test_adapters_spare_the_gradients_of_the_frozen_weights_and_recomputing_costs_a_forward_pass() -> None:
    shape = llama_7b()
    full = training_flops(shape, [512])
    adapters = shape.adapter_parameters(64)
    assert adapters == 159_907_840
    assert training_flops(shape, [512], adapter_parameters=adapters) / full == pytest.approx(0.68, abs=0.02)
    assert training_flops(shape, [512], recompute=True) / full == pytest.approx(4 / 3, abs=0.01)


def test_a_window_bounds_what_a_token_sees() -> None:
    config = {**CONFIGS["mistral"], "sliding_window": 4}
    seen = sum(min(place + 1, 4) for place in range(10))
    shape = model_shape(config)
    per_pair = 3 * shape.layers * 4 * shape.heads * shape.head_size
    weights = 6 * shape.multiplied_parameters * 10
    assert training_flops(shape, [10]) == weights + per_pair * seen
    assert training_flops(model_shape(CONFIGS["mistral"]), [10]) == weights + per_pair * 55


@pytest.mark.parametrize(
    ("device", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA L40S", 362.05),
    ],
)
def test_a_device_has_the_peak_of_its_data_sheet(device: str, tera: float) -> None:
    assert peak_flops(device) == tera * 1e12


@pytest.mark.parametrize("device", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "Tesla V100-SXM2-32GB", "cpu", ""])
def test_a_device_without_a_known_peak_has_none(device: str) -> None:
    assert peak_flops(device) is None


@pytest.mark.parametrize("model", [model for family in FAMILIES.all() for model in family.models], ids=lambda m: m.name)
def test_a_base_model_has_the_parameters_that_its_config_gives(model: PretrainedModel) -> None:
    assert model_shape(model.config).parameters == model.parameters
    assert model_shape(model.config).context == model.context_tokens


def llama_7b() -> ModelShape:
    """As its config.json says; written before transformers knew of grouped queries."""
    return model_shape(
        {
            "model_type": "llama",
            "vocab_size": 32_000,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 11_008,
            "max_position_embeddings": 2048,
        }
    )
