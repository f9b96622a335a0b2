"""Adapters on models as they are loaded: where they sit, what they leave alone, and what 4 bits must not break."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from base_models import write_llama, write_opt, write_pythia

torch = pytest.importorskip("torch")
from training_runs import PROFILE, RECIPE  # noqa: E402

from tulu_pipeline.errors import BadInput, NotFound  # noqa: E402
from tulu_pipeline.profile import Profile  # noqa: E402
from tulu_pipeline.specs.recipe import Lora  # noqa: E402
from tulu_pipeline.training.batching.plans import row_boundaries  # noqa: E402
from tulu_pipeline.training.job import TrainingJob  # noqa: E402
from tulu_pipeline.training.model.adapters import add_adapters, merged_state  # noqa: E402
from tulu_pipeline.training.model.attention import row_inputs, use_packed_attention  # noqa: E402
from tulu_pipeline.training.model.loading import LoadedModel, load_model  # noqa: E402
from tulu_pipeline.training.saving.export import _Answers, _unlike  # noqa: E402
from tulu_pipeline.training.zero import deepspeed_config  # noqa: E402

LORA = Lora(rank=4, dropout=0.0)
LAYERS = {
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "opt": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "gpt_neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
}


@pytest.fixture(scope="module")
def bases(llama_like: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    write_llama(root / "llama", llama_like)
    write_opt(root / "opt")
    write_pythia(root / "gpt_neox")
    return {name: root / name for name in LAYERS}


def loaded(model: Path, lora: Lora, profile: Profile = PROFILE, dtype: Any = "fp32") -> LoadedModel:
    recipe = replace(RECIPE, lora=lora, dtype=dtype)
    nowhere = model / "unused"
    torch.manual_seed(0)  # a new row of the embeddings is drawn
    return load_model(
        TrainingJob(
            recipe=recipe,
            profile=profile,
            tokens=(),
            model=model,
            out=nowhere,
            work=nowhere,
            deepspeed=deepspeed_config(recipe, profile),
            resume=None,
            stop_file=nowhere,
            rendezvous=nowhere,
        )
    )


def moved(model: Any) -> Any:
    """The adapted model with adapters that do something."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.05, generator=generator)
    return model


@pytest.mark.parametrize("name", LAYERS)
def test_every_linear_layer_but_the_head_gets_an_adapter_and_nothing_else_trains(
    bases: dict[str, Path], name: str
) -> None:
    model = loaded(bases[name], LORA).model
    trained = [each for each, parameter in model.named_parameters() if parameter.requires_grad]
    assert {each.split(".lora_")[0].rpartition(".")[2] for each in trained} == LAYERS[name]
    assert all(".lora_A." in each or ".lora_B." in each for each in trained)
    per_block = 2 * len(LAYERS[name])
    assert len(trained) == per_block * model.config.num_hidden_layers


def test_named_layers_are_the_ones_that_get_an_adapter(bases: dict[str, Path]) -> None:
    model = loaded(bases["llama"], replace(LORA, target_modules=("v_proj", "q_proj"))).model
    trained = {each.split(".")[-4] for each, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"q_proj", "v_proj"}


@pytest.mark.parametrize("asked", ["q_pro", "lm_head", "norm"])
def test_a_layer_that_is_not_there_is_an_error_that_names_those_that_are(bases: dict[str, Path], asked: str) -> None:
    with pytest.raises(NotFound) as error:
        loaded(bases["llama"], replace(LORA, target_modules=("v_proj", asked)))
    assert f"no linear layer of `llama` named `{asked}`" in error.value.what
    assert all(layer in error.value.fix for layer in LAYERS["llama"])


def test_embeddings_grow_for_the_pad_token_before_the_adapters_come(bases: dict[str, Path]) -> None:
    found = loaded(bases["llama"], LORA)
    rows = found.model.get_input_embeddings().weight
    assert found.pad_is_new
    assert len(rows) == len(found.tokenizer) == found.model.config.vocab_size == found.tokenizer.pad_token_id + 1
    assert not rows.requires_grad
    state = merged_state(found.model, found.model.state_dict())
    assert len(state["model.embed_tokens.weight"]) == len(state["lm_head.weight"]) == len(rows)


def test_adapters_begin_as_the_seed_draws_them_and_change_nothing_yet(bases: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.arange(9)[None]
    base = AutoModelForCausalLM.from_pretrained(bases["gpt_neox"])
    wanted = base(input_ids=ids).logits
    torch.manual_seed(5)
    first = add_adapters(base, LORA, seed=1)
    assert torch.equal(first(input_ids=ids).logits, wanted)
    torch.rand(3)
    again = add_adapters(AutoModelForCausalLM.from_pretrained(bases["gpt_neox"]), LORA, seed=1)
    other = add_adapters(AutoModelForCausalLM.from_pretrained(bases["gpt_neox"]), LORA, seed=2)
    drawn = [[value for name, value in each.state_dict().items() if "lora_A" in name] for each in (first, again, other)]
    assert all(torch.equal(one, two) for one, two in zip(drawn[0], drawn[1], strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(drawn[0], drawn[2], strict=True))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("name", LAYERS)
def test_conversations_of_a_row_are_isolated_under_adapters_too(
    bases: dict[str, Path], name: str, quantization: Any
) -> None:
    model = moved(loaded(bases[name], replace(LORA, quantization=quantization)).model).eval()
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randint(4, 300, (1, length), generator=generator) for length in (7, 1, 13)]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=part).logits for part in parts], dim=1)
        use_packed_attention(model, model, "cpu")
        row = row_inputs(row_boundaries(np.array([7, 1, 13])), "cpu")
        together = model(input_ids=torch.cat(parts, dim=1), use_cache=False, **row).logits
    assert float((together - alone).abs().max()) <= 1e-5 * float(alone.abs().max())


def test_a_pass_without_gradients_leaves_4_bit_weights_such_that_later_ones_have_theirs(
    bases: dict[str, Path],
) -> None:
    """On a CPU with bfloat16 instructions bitsandbytes would lay them out for inference for good."""
    ids = torch.arange(4, 30)[None]
    gradients = []
    for look_first in (False, True):
        model = moved(loaded(bases["llama"], replace(LORA, quantization="nf4"), dtype="bf16").model)
        if look_first:
            model.eval()
            with torch.no_grad():
                model(input_ids=ids)
            model.train()
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append([each.grad for each in model.parameters() if each.requires_grad])
    assert all(float(each.norm()) > 0 for each in gradients[0])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("quantization", "double"), [("none", True), ("nf4", True), ("nf4", False)])
def test_merged_weights_compute_what_base_and_adapter_do(
    bases: dict[str, Path], name: str, quantization: Any, double: bool
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    lora = replace(LORA, quantization=quantization, double_quantization=double)
    model = moved(loaded(bases[name], lora).model).eval()
    config = AutoConfig.from_pretrained(bases[name], vocab_size=model.config.vocab_size)
    plain = AutoModelForCausalLM.from_config(config).eval()
    plain.load_state_dict(merged_state(model, model.state_dict()))
    ids = torch.arange(4, 40)[None]
    with torch.no_grad():
        wanted, found = model(input_ids=ids).logits, plain(input_ids=ids).logits
        unmerged = model.disable_adapter()
        with unmerged:
            base = model(input_ids=ids).logits
    scale = float(wanted.abs().max())
    assert float((found - wanted).abs().max()) <= 1e-5 * scale
    assert float((base - wanted).abs().max()) > 1e-2 * scale


def test_4_bit_weights_under_zero_3_are_refused_with_what_to_write(bases: dict[str, Path]) -> None:
    with pytest.raises(BadInput) as error:
        loaded(bases["opt"], replace(LORA, quantization="nf4"), replace(PROFILE, zero_stage=3))
    assert "zero_stage = 2" in error.value.fix


@pytest.mark.parametrize("tolerance", [1e-4, 5e-2], ids=["fp32", "bf16"])
def test_a_merge_that_did_nothing_is_told_though_the_adapters_are_small(tolerance: float) -> None:
    generator = torch.Generator().manual_seed(1)
    base, change, rounding = (torch.randn((48, 100), generator=generator) for _ in range(3))
    largest = float(base.abs().max())
    small = base + change * largest * tolerance / 4.5  # nowhere more than the tolerance
    answers = _Answers(adapted=small, base=base)
    noise = rounding * largest * tolerance / 20
    assert _unlike(small + noise, answers, tolerance) == ""
    assert _unlike(base, answers, tolerance) == "it is 1.0 of the adapter's way off, and 0.0 off the base"
    assert "0.8 of the adapter's way off" in _unlike(base + 0.2 * (small - base), answers, tolerance)
    unmoved = _Answers(adapted=base + noise, base=base)
    assert _unlike(base, unmoved, tolerance) == "", "what no one can tell from rounding"
    assert "logits differ by" in _unlike(small + 10 * noise, answers, tolerance)
