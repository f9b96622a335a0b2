"""Numbers of a recipe that no training can take are refused by name, before anything starts."""

import math
from typing import Any

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.recipe import Lora, Recipe


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0), ("final_learning_rate_share", 1.5), ("epochs", -1.0), ("max_steps", 0),
        ("conversations_per_step", 0), ("warmup_ratio", 1.0), ("warmup_steps", -1), ("weight_decay", -0.1),
        ("adam_beta1", 1.0), ("adam_beta2", -0.1), ("adam_epsilon", 0.0), ("clip_norm", -1.0),
        ("max_length_tokens", 7), ("loss_micro_batch_conversations", 0), ("seed", -1), ("seed", 2**63),
        ("held_out_conversations", -1), ("held_out_every_steps", 0),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(BadInput) as refused:
        Recipe(**{name: value})
    assert (refused.value.what, refused.value.where) == (f"{name} is {value}", "recipe")
    assert refused.value.fix.startswith("write ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused_by_name(value: float) -> None:
    for name in ("learning_rate", "epochs", "clip_norm", "warmup_ratio", "weight_decay"):
        with pytest.raises(BadInput, match=f"{name} is {value}"):
            Recipe(**{name: value})  # type: ignore[arg-type]  # one of many
    with pytest.raises(BadInput, match=f"alpha is {value}"):
        Lora(alpha=value)


def test_the_ends_of_the_ranges_are_taken() -> None:
    Recipe(
        final_learning_rate_share=1.0, warmup_steps=0, warmup_ratio=0.0, clip_norm=0.0, adam_beta1=0.0, seed=2**63 - 1
    )
