"""What to change where a finetuning does not fit: settings that save something, as few as will do, and then it fits."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.dry_run_advice import Case, what_fits
from flows.dry_run_device import Device
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Lora, Recipe
from tulu_pipeline.training.estimates.shape import likely_shape
from tulu_pipeline.training.estimates.workload import estimated_workload

GIB = 2**30
SHAPE = likely_shape(6_738_415_616, 2048)
LORA, QLORA = Lora(), Lora(quantization="nf4")


def case(gib: float, *, gpu: bool = True, lora: Lora | None = None, **profile: Any) -> Case:
    recipe = Recipe(lora=lora)
    how = Profile(**profile)
    work = estimated_workload(10_000, 500.0, recipe, how)
    device = Device(name="x", is_gpu=gpu, memory_bytes=int(gib * GIB), here=False)
    return Case(shape=SHAPE, recipe=recipe, profile=how, device=device, workload=work)


def advised(told: str) -> dict[str, Any]:
    """The settings of the profile that an advice names."""
    named = dict(re.findall(r"(\w+) = (\w+)", told))
    return {name: value == "true" if value in {"true", "false"} else int(value) for name, value in named.items()}


def test_rows_are_made_shorter_where_they_govern_and_the_micro_batch_where_it_does() -> None:
    wide = case(30, gpu=False, lora=QLORA, ranks=1, row_tokens=8192, micro_batch_conversations=8)
    assert advised(what_fits(wide)) == {"row_tokens": 2048}
    padded = replace(wide, profile=replace(wide.profile, layout="padded", row_tokens=0))
    assert advised(what_fits(padded)) == {"micro_batch_conversations": 1}


def test_a_setting_that_saves_nothing_is_not_named() -> None:
    short = case(30, lora=QLORA, ranks=1, row_tokens=2048, micro_batch_conversations=64)
    assert short.excess() < 0
    tight = replace(short, device=replace(short.device, memory_bytes=12 * GIB))
    assert advised(what_fits(tight)) == {"gradient_checkpointing": True}


@given(
    st.floats(5, 200),
    st.booleans(),
    st.sampled_from([None, LORA, QLORA]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([0, 2, 3]),
    st.sampled_from(["step", "padded"]),
    st.sampled_from([0, 4096, 16384]),
)
def test_what_is_advised_fits_and_no_part_of_it_could_be_left_out(
    gib: float, gpu: bool, lora: Lora | None, ranks: int, stage: int, layout: Any, row_tokens: int
) -> None:
    if lora is QLORA:
        stage = min(stage, 2)
    found = case(gib, gpu=gpu, lora=lora, ranks=ranks, zero_stage=stage, layout=layout, row_tokens=row_tokens)
    if found.excess() <= 0:
        return
    told = what_fits(found)
    if "recipe.lora" in told or "smaller model" in told:
        return
    changes = advised(told)
    assert changes
    assert found.changed(changes).excess() <= 0
    for name in changes:
        assert found.changed({other: value for other, value in changes.items() if other != name}).excess() > 0


@pytest.mark.parametrize("lora", [None, LORA])
def test_on_a_processor_nothing_is_moved_to_the_processor_and_its_ranks_share_the_memory(lora: Lora | None) -> None:
    told = what_fits(case(12, gpu=False, lora=lora, ranks=2))
    assert "offload" not in told
    assert "GPU" not in told.partition("with")[2]
    alone = what_fits(case(7, gpu=False, lora=QLORA, ranks=2, gradient_checkpointing=True, zero_stage=2))
    assert advised(alone) == {"ranks": 1}


def test_adapters_are_not_advised_to_whom_has_them() -> None:
    assert "with adapters on 4-bit weights (recipe.lora, quantization nf4)" in what_fits(case(12, gpu=False, lora=LORA))
    hopeless = what_fits(case(2, lora=QLORA))
    assert "adapters" not in hopeless
    assert "larger GPUs" in hopeless


def test_four_bit_weights_are_advised_without_splitting_them() -> None:
    told = what_fits(case(6, gpu=False, ranks=2, zero_stage=3))
    assert "quantization nf4" in told
    assert advised(told)["zero_stage"] == 2
