"""A time follows from an earlier training like it, else from operations over peak."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tulu_pipeline.models import llama
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Lora, Recipe
from tulu_pipeline.training.estimates.duration import EarlierTraining, from_earlier, from_flops
from tulu_pipeline.training.estimates.flops import training_flops
from tulu_pipeline.training.estimates.shape import likely_shape, model_shape

H100 = "NVIDIA H100 80GB HBM3"
RECIPE: dict[str, Any] = {"max_length_tokens": 2048, "dtype": "bf16"}
PROFILE = Profile(ranks=8, zero_stage=3)
SHAPE = model_shape(llama.FAMILY.model("llama-7b").config)


def earlier(name: str = "finetune[llama-7b+a]", speed: float = 1000.0, **profile: Any) -> EarlierTraining:
    kept = {field: getattr(PROFILE, field) for field in PROFILE.__slots__} | profile
    metrics = {"tokens_per_second": speed, "device": H100}
    return EarlierTraining(name=name, same_model=True, recipe=RECIPE, profile=kept, metrics=metrics)


def test_the_last_training_like_it_says() -> None:
    found = from_earlier([earlier(speed=500), earlier(speed=1000)], 50_000, RECIPE, PROFILE, H100)
    assert found is not None
    assert found.seconds == 50
    assert "finetune[llama-7b+a], 1,000 tokens/s" in found.source


def test_other_ranks_scale_and_the_same_ranks_win() -> None:
    half = earlier(speed=400, ranks=4)
    found = from_earlier([half], 8000, RECIPE, PROFILE, H100)
    assert found is not None
    assert found.seconds == 10
    assert "with 4 ranks, scaled to 8" in found.source
    same = from_earlier([earlier(speed=1000), half], 8000, RECIPE, PROFILE, H100)
    assert same is not None
    assert same.seconds == 8


@pytest.mark.parametrize(
    "other",
    [
        replace(earlier(), same_model=False),
        replace(earlier(), recipe=RECIPE | {"max_length_tokens": 512}),
        replace(earlier(), recipe=RECIPE | {"lora": {"rank": 64}}),
        replace(earlier(), metrics={"tokens_per_second": 1.0, "device": "NVIDIA A100-SXM4-80GB"}),
        replace(earlier(), metrics={"tokens_per_second": 1.0}),
        earlier(layout="padded"),
        earlier(gradient_checkpointing=True),
    ],
)
def test_a_training_of_another_kind_says_nothing(other: EarlierTraining) -> None:
    assert from_earlier([other], 8000, RECIPE, PROFILE, H100) is None


def test_without_a_measure_time_is_operations_over_peak_and_the_assumption_is_told() -> None:
    found = from_flops(SHAPE, Recipe(), PROFILE, tokens=1_000_000, mean_length=500.0, busy_share=0.8, device=H100)
    wanted = 2000 * training_flops(SHAPE, [500]) / (8 * 989.4e12 * 0.40 * 0.8)
    assert found.seconds == pytest.approx(wanted)
    assert found.source == f"assumed: 40% of 989 TFLOP/s (bf16, dense) on each of 8 × {H100}"


def test_checkpointing_costs_a_forward_pass_and_adapters_spare_gradients() -> None:
    def seconds(recipe: Recipe, profile: Profile) -> float:
        found = from_flops(SHAPE, recipe, profile, tokens=10**6, mean_length=500.0, busy_share=None, device=H100)
        assert found.seconds is not None
        return found.seconds

    full = seconds(Recipe(), PROFILE)
    assert seconds(Recipe(), replace(PROFILE, gradient_checkpointing=True)) / full == pytest.approx(4 / 3, abs=0.02)
    assert seconds(Recipe(lora=Lora()), PROFILE) / full == pytest.approx(0.68, abs=0.02)
    assert (
        "assumed: 25%"
        in from_flops(
            SHAPE,
            Recipe(lora=Lora(quantization="nf4")),
            PROFILE,
            tokens=1,
            mean_length=1.0,
            busy_share=None,
            device=H100,
        ).source
    )


@pytest.mark.parametrize(("device", "dtype"), [("", "bf16"), ("NVIDIA Something", "bf16"), (H100, "fp32")])
def test_without_a_peak_there_is_no_time(device: str, dtype: Any) -> None:
    found = from_flops(SHAPE, Recipe(dtype=dtype), PROFILE, tokens=1, mean_length=1.0, busy_share=None, device=device)
    assert found.seconds is None
    assert found.source.startswith("unknown")


@pytest.mark.parametrize("parameters", [350_000_000, 1_100_000_000, 7_000_000_000, 70_000_000_000])
def test_a_likely_shape_has_about_the_parameters(parameters: int) -> None:
    assert likely_shape(parameters, 2048).parameters == pytest.approx(parameters, rel=0.12)
