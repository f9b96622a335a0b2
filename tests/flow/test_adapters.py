"""Adapters, ZeRO stages and what saves memory: real trainings on two gloo ranks, with no compiler in reach."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from spawned_ranks import make_job, run_jobs, steps_of
from training_runs import PROFILE, write_arithmetic, write_tiny_model

from tulu_pipeline.specs.recipe import Lora

pytestmark = pytest.mark.timeout(600)

STEPS, SAVED_AFTER = 5, 3
LORA = Lora(rank=8, dropout=0.0)
QLORA = replace(LORA, quantization="nf4")
FULL = replace(PROFILE, checkpoint_every_steps=0)
TRAININGS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{
        f"{kind} {dtype} zero{stage}": (replace(FULL, zero_stage=stage), {"lora": lora, "dtype": dtype})
        for kind, lora, dtype, stages in (
            ("full", None, "fp32", (0, 1, 2, 3)),
            ("full", None, "bf16", (0, 1, 2, 3)),
            ("lora", LORA, "fp32", (0, 1, 2, 3)),
            ("lora", LORA, "bf16", (2, 3)),
            ("qlora", QLORA, "fp32", (0, 1, 2)),
            ("qlora", QLORA, "bf16", (2,)),
        )
        for stage in stages
    },
    "unclipped zero0": (replace(FULL, zero_stage=0), {"clip_norm": 0.0}),
    "unclipped zero2": (replace(FULL, zero_stage=2), {"clip_norm": 0.0}),
    "lora padded": (replace(FULL, layout="padded"), {"lora": LORA}),
    "lora twice computed zero3": (replace(FULL, zero_stage=3, gradient_checkpointing=True), {"lora": LORA}),
    "full unfused zero2": (replace(FULL, zero_stage=2, kernels="torch"), {}),
    "full offloaded zero2": (replace(FULL, zero_stage=2, offload=True), {}),
    "lora offloaded zero3": (replace(FULL, zero_stage=3, offload=True), {"lora": LORA}),
}
RESUMED = {
    f"{kind} zero{stage} resumed": (
        replace(PROFILE, zero_stage=stage, checkpoint_every_steps=SAVED_AFTER),
        {"lora": lora},
    )
    for kind, lora, stage in (
        ("full", None, 0),
        ("full", None, 1),
        ("lora", replace(LORA, dropout=0.1), 2),
        ("lora", replace(LORA, dropout=0.1), 3),
        ("qlora", replace(QLORA, dropout=0.1), 2),
    )
}
SHORT = {"max_steps": STEPS, "warmup_steps": 1}


@pytest.fixture(scope="module", autouse=True)
def machine_without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arithmetic(tmp_path_factory.mktemp("tokens"), model)


@pytest.fixture(scope="module")
def trained(model: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trainings, one each by its name."""
    root = tmp_path_factory.mktemp("trained")
    run_jobs(
        [
            make_job(root / name, model, tokens, profile, **SHORT | changes)
            for name, (profile, changes) in (TRAININGS | RESUMED).items()
        ]
    )
    return root


def losses(folder: Path) -> list[float]:
    found = [step.loss for step in steps_of(folder)]
    assert len(found) == STEPS
    return found


@pytest.mark.parametrize("kind", ["full fp32", "full bf16", "lora fp32", "qlora fp32"])
def test_every_stage_trains_the_same(trained: Path, kind: str) -> None:
    # Ranks and passes add up in another order; in bf16 what they add has 8 bits.
    tolerance = {"rel": 1e-6 if "fp32" in kind else 1e-3}
    names = [name for name in TRAININGS if name.startswith(f"{kind} zero")]
    assert len(names) > 2
    first, *others = ([(step.loss, step.grad_norm) for step in steps_of(trained / name)] for name in names)
    assert all(norm is not None and norm > 0 for _, norm in first)
    for other in others:
        assert [loss for loss, _ in other] == pytest.approx([loss for loss, _ in first], **tolerance)
        assert [norm for _, norm in other] == pytest.approx([norm for _, norm in first], rel=10 * tolerance["rel"])


def test_the_norm_of_the_gradients_is_told_where_nothing_is_clipped_too(trained: Path) -> None:
    told, wanted, clipped = (
        [step.grad_norm for step in steps_of(trained / name)]
        for name in ("unclipped zero0", "unclipped zero2", "full fp32 zero0")
    )
    assert len(told) == STEPS
    assert told == pytest.approx(wanted, rel=1e-5)
    assert told[0] == pytest.approx(clipped[0])
    assert max(norm or 0.0 for norm in told) > 1.0, "nothing would have been clipped"
    assert losses(trained / "unclipped zero0") != losses(trained / "full fp32 zero0")


@pytest.mark.parametrize(
    ("name", "as_in"),
    [
        ("lora twice computed zero3", "lora fp32 zero3"),
        ("full unfused zero2", "full fp32 zero2"),
        ("full offloaded zero2", "full fp32 zero2"),
        ("lora offloaded zero3", "lora fp32 zero3"),
        ("lora padded", "lora fp32 zero2"),
    ],
)
def test_what_saves_memory_or_time_changes_no_loss(trained: Path, name: str, as_in: str) -> None:
    assert losses(trained / name) == pytest.approx(losses(trained / as_in), rel=1e-6)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_losses_are_those_of_plain_peft(trained: Path, model: Path, tokens: Path, kind: str) -> None:
    wanted, adapters = plain_peft(model, tokens, QLORA if kind == "qlora" else LORA)
    assert wanted[-1] < 0.98 * wanted[1], "nothing was learned, so nothing was compared"
    assert losses(trained / f"{kind} fp32 zero2") == pytest.approx(wanted, rel=1e-5)
    found = adapter_of(trained / f"{kind} fp32 zero2")
    assert found.keys() == adapters.keys()
    for name, value in adapters.items():
        assert float((found[name] - value).norm()) <= 1e-3 * float(value.norm()), name


@pytest.mark.parametrize(("stage", "dtype"), [(0, "fp32"), (3, "fp32"), (2, "bf16"), (3, "bf16")])
def test_only_adapters_moved_and_they_are_merged_into_the_base(
    trained: Path, model: Path, stage: int, dtype: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = trained / f"lora {dtype} zero{stage}"
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    base = AutoModelForCausalLM.from_pretrained(model, dtype=kind).state_dict()
    merged = AutoModelForCausalLM.from_pretrained(folder / "out", dtype="auto").state_dict()
    assert merged.keys() == base.keys()
    adapter = adapter_of(folder)
    moved = 0
    for name, weight in merged.items():
        a, b = (
            adapter.get(f"base_model.model.{name.removesuffix('weight')}{part}.weight") for part in ("lora_A", "lora_B")
        )
        assert weight.dtype == kind
        if a is None:
            assert torch.equal(weight, base[name]), name
            continue
        moved += 1
        update = LORA.alpha / LORA.rank * (b.float() @ a.float())
        assert float(update.norm()) > 0
        assert torch.equal(weight, (base[name].float() + update).to(kind)), name
    assert moved == 2 * 7, "seven linear layers in each of two blocks"


def test_4_bit_weights_are_merged_as_what_was_trained_against(trained: Path, model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = trained / "qlora fp32 zero2"
    base, quantized = (AutoModelForCausalLM.from_pretrained(model, **how) for how in ({}, nf4(torch.float32)))
    merged = AutoModelForCausalLM.from_pretrained(folder / "out", dtype="auto").state_dict()
    adapter = adapter_of(folder)
    name = "model.layers.1.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
    # What comes out of the quantized layer for each unit vector is its weight, by its own forward pass.
    layer = quantized.get_submodule(name)
    weight = layer(torch.eye(layer.in_features, requires_grad=True)).T.detach()
    wanted = weight + LORA.alpha / LORA.rank * (b @ a)
    own = base.state_dict()[f"{name}.weight"]
    assert float((merged[f"{name}.weight"] - wanted).abs().max()) < 1e-5 * float(own.abs().max())
    assert float((weight - own).norm()) > 0.02 * float(own.norm()), "4 bits lose something"
    assert not [each for each in merged if "quant" in each or "absmax" in each]
    assert "quantization_config" not in (folder / "out" / "config.json").read_text()


@pytest.mark.parametrize("name", ["lora fp32 zero3", "lora bf16 zero2", "qlora fp32 zero2", "qlora bf16 zero2"])
def test_the_adapter_opens_with_peft_on_its_base_and_answers_as_the_checkpoint_does(
    trained: Path, model: Path, name: str
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    kind = torch.float32 if "fp32" in name else torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(model, dtype=kind, **(nf4(kind) if "qlora" in name else {}))
    merged = AutoModelForCausalLM.from_pretrained(trained / name / "out", dtype="auto")
    ids = torch.arange(4, 40)[None]
    # In training mode: out of it bitsandbytes lays 4-bit weights out anew on some CPUs, and loses bits.
    with torch.no_grad():
        untuned = base.train()(input_ids=ids).logits.float()
        adapted = PeftModel.from_pretrained(base, trained / name / "work" / "adapter").train()(input_ids=ids).logits
        found = merged(input_ids=ids).logits.float()
    adapted = adapted.float()
    scale = float(found.abs().max())
    # In fp32 rounding is 1e-6 of the largest logit; in bf16 each layer rounds its base and its adapter to 8 bits.
    assert float((found - adapted).abs().max()) < (1e-5 if kind == torch.float32 else 3e-2) * scale
    assert float((found - untuned).abs().max()) > 5e-2 * scale, "nothing was learned, so nothing was compared"
    assert "/" not in (trained / name / "work" / "adapter" / "adapter_config.json").read_text(), "no path of a machine"


@pytest.mark.parametrize("name", RESUMED)
def test_a_training_goes_on_digit_for_digit(trained: Path, name: str) -> None:
    first, second = (steps_of(trained / name, file) for file in ("first.jsonl", "steps.jsonl"))
    assert [step.step for step in second] == list(range(1, STEPS + 1))
    assert [(step.loss, step.grad_norm) for step in second] == [(step.loss, step.grad_norm) for step in first]
    assert second[SAVED_AFTER:] != first[SAVED_AFTER:], "times differ, or these are the same records"


def test_saved_state_of_adapters_leaves_out_what_does_not_train(trained: Path, model: Path) -> None:
    weights = (model / "model.safetensors").stat().st_size
    for name in RESUMED:
        saved = sum(each.stat().st_size for each in (trained / name / "work" / "state").rglob("*") if each.is_file())
        assert (saved > 2 * weights) == name.startswith("full"), (name, saved, weights)


def nf4(dtype: Any) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": config, "device_map": {"": "cpu"}}


def adapter_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "work" / "adapter" / "adapter_model.safetensors")


def plain_peft(model_folder: Path, tokens_folder: Path, lora: Lora) -> tuple[list[float], dict[str, Any]]:
    """The same recipe in two dozen lines of torch and peft, one conversation at a time: losses and adapters."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from training_runs import RECIPE, losses_in_torch
    from transformers import AutoModelForCausalLM

    recipe = replace(RECIPE, **SHORT)
    quantized = nf4(torch.float32) if lora.quantization == "nf4" else {}
    base = AutoModelForCausalLM.from_pretrained(model_folder, **quantized)
    torch.manual_seed(recipe.seed)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    return losses_in_torch(model, tokens_folder, recipe, STEPS), get_peft_model_state_dict(model)
