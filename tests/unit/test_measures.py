"""What is said of a step beside its loss: the share of the hardware's peak, and what is left."""

import numpy as np
import pytest

from tulu_pipeline.specs.recipe import Lora, Recipe
from tulu_pipeline.training.estimates.flops import peak_flops, training_flops
from tulu_pipeline.training.estimates.shape import model_shape
from tulu_pipeline.training.tracking.measures import Remaining, Utilization

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
H100 = "NVIDIA H100 80GB HBM3"
LENGTHS = np.full(128, 2048)


def utilization(config=LLAMA, recipe=Recipe(), *, ranks=8, device: str | None = H100, adapters=0) -> Utilization:  # noqa: B008
    return Utilization(config, recipe, adapter_parameters=adapters, ranks=ranks, device=device)


def test_mfu_is_what_is_needed_over_what_the_gpus_could_do() -> None:
    seconds = 4.0
    needed = training_flops(model_shape(LLAMA), LENGTHS)
    # 6.7B parameters, 262,144 tokens: 6 N D is 1.05e16 operations, and attention a little more.
    assert 1.0e16 < needed < 1.2e16
    found = utilization()(LENGTHS, seconds)
    peak = peak_flops(H100)
    assert peak is not None
    assert found == pytest.approx(needed / (8 * peak * seconds))
    assert found == pytest.approx(0.34, abs=0.03)
    assert utilization(ranks=16)(LENGTHS, seconds) == pytest.approx(found / 2)


def test_adapters_need_less_since_the_base_weights_have_no_gradients() -> None:
    whole = utilization()(LENGTHS, 1.0)
    adapted = utilization(recipe=Recipe(lora=Lora()), adapters=40_000_000)(LENGTHS, 1.0)
    assert whole is not None
    assert adapted is not None
    assert 0.6 * whole < adapted < 0.75 * whole


@pytest.mark.parametrize(
    "unknown",
    [
        {"device": None},
        {"device": "Some GPU of tomorrow"},
        {"recipe": Recipe(dtype="fp32")},
        {"config": {**LLAMA, "model_type": "of_tomorrow"}},
    ],
    ids=["no GPU", "unknown GPU", "not bf16", "unknown architecture"],
)
def test_what_is_not_known_is_not_made_up(unknown: dict) -> None:
    assert utilization(**unknown)(LENGTHS, 1.0) is None


def test_what_is_left_follows_from_the_last_steps_and_what_was_between_them() -> None:
    remaining = Remaining(1000)
    assert remaining.after(1, 2.0, clock=100.0) == pytest.approx(2.0 * 999)
    # Two seconds a step, and one more between them for saving.
    assert remaining.after(2, 2.0, clock=103.0) == pytest.approx(3.0 * 998)
    for step in range(3, 101):
        left = remaining.after(step, 0.5, clock=103.0 + 0.5 * (step - 2))
    assert left == pytest.approx(0.5 * 900), "the slow beginning is forgotten"
    assert remaining.after(1000, 0.5, clock=1e4) == 0
