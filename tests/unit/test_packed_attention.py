"""Conversations of a row do not see each other; where they would, the row is refused."""

from itertools import product
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from tulu_pipeline.errors import BadInput  # noqa: E402
from tulu_pipeline.specs.recipe import LossNorm  # noqa: E402
from tulu_pipeline.training.batching.batches import Tokens, step_batches  # noqa: E402
from tulu_pipeline.training.batching.plans import StepPlan, padded_plan, row_boundaries, step_plan  # noqa: E402
from tulu_pipeline.training.model.attention import PACKED, packed_attention, row_inputs, use_packed_attention  # noqa: E402
from tulu_pipeline.training.model.loss import micro_batch_loss  # noqa: E402

ENTRIES, PAD = 97, 0
SMALL = {
    "vocab_size": ENTRIES,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Far from uniform, so that who sees whom shows in the logits.
    "initializer_range": 0.3,
}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64, "init_std": 0.3, "dropout": 0.0}
ISOLATING = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "llama with grouped heads": lambda: transformers.LlamaConfig(**SMALL, num_key_value_heads=2),
    "opt": lambda: transformers.OPTConfig(**SMALL, **OPT),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**SMALL),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "sliding window": lambda: transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=6),
}
REFUSED = {
    "a recurrent state runs through the row": lambda: transformers.MambaConfig(
        vocab_size=ENTRIES, hidden_size=32, num_hidden_layers=2, initializer_range=0.3
    ),
    "a convolution reaches over the boundary": lambda: transformers.Lfm2Config(
        **SMALL, num_key_value_heads=2, layer_types=["conv", "full_attention"]
    ),
    "positions are in the attention": lambda: transformers.BloomConfig(
        vocab_size=ENTRIES, hidden_size=32, n_layer=2, n_head=4
    ),
    "scores are capped": lambda: transformers.Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "attention with sinks": lambda: transformers.GptOssConfig(
        **SMALL, num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1
    ),
}
LENGTHS = (7, 1, 13, 2, 20)


def untrained(config: Any, dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


@pytest.mark.parametrize("config", ISOLATING.values(), ids=list(ISOLATING))
def test_logits_of_a_row_are_those_of_its_conversations_alone(config: Any) -> None:
    model = untrained(config())
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randint(ENTRIES, (1, length), generator=generator) for length in LENGTHS]
    alone = torch.cat([model.eval()(input_ids=part).logits for part in parts], dim=1).detach()
    use_packed_attention(model, model, "cpu")
    inputs = row_inputs(row_boundaries(np.array(LENGTHS)), "cpu")
    together = model(input_ids=torch.cat(parts, dim=1), use_cache=False, **inputs).logits.detach()
    assert float((together - alone).abs().max()) <= 1e-5 * float(alone.abs().max())
    joined = row_inputs(row_boundaries(np.array([sum(LENGTHS)])), "cpu")
    seen = model(input_ids=torch.cat(parts, dim=1), use_cache=False, **joined).logits.detach()
    assert float((seen - alone).abs().max()) > 0.1 * float(alone.abs().max()), "nothing to isolate"


@pytest.mark.parametrize("config", ISOLATING.values(), ids=list(ISOLATING))
def test_half_precision_passes_the_check_too(config: Any) -> None:
    model = untrained(config(), torch.bfloat16)
    use_packed_attention(model, model, "cpu")
    assert model.config._attn_implementation == PACKED


@pytest.mark.parametrize("config", REFUSED.values(), ids=list(REFUSED))
def test_rows_are_refused_where_conversations_would_see_each_other(config: Any) -> None:
    model = untrained(config())
    with pytest.raises(BadInput) as refusal:
        use_packed_attention(model, model, "cpu")
    assert model.config.model_type in refusal.value.what.lower().replace("gptoss", "gpt_oss")
    assert 'layout = "padded"' in refusal.value.fix


def test_attention_that_is_not_told_the_boundaries_is_an_error() -> None:
    states = torch.zeros(1, 1, 4, 8)
    with pytest.raises(BadInput, match="`Identity` is not told where conversations begin"):
        packed_attention(torch.nn.Identity(), states, states, states, None)


def test_checking_leaves_the_model_as_it_was() -> None:
    for training in (True, False):
        model = untrained(ISOLATING["llama"]()).train(training)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        use_packed_attention(model, model, "cpu")
        assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert "tulu" not in model.config.to_json_string()


def step_of_conversations() -> list[Tokens]:
    generator = np.random.default_rng(5)
    made = []
    for length in generator.integers(4, 40, 11):
        mask = (generator.random(length) < 0.6).astype(np.uint8)
        mask[-1] = 1
        made.append((generator.integers(1, ENTRIES, length).astype(np.uint16), mask))
    return made


def gradients(model: Any, made: list[Tokens], plan: StepPlan, norm: LossNorm) -> tuple[float, Any]:
    """Loss and gradient of a step, all ranks' passes one after the other."""
    model.zero_grad()
    lengths = np.array([len(ids) for ids, _ in made])
    total = 0.0
    for rank in range(plan.ranks):
        batches, _ = step_batches(made, plan, lengths, rank=rank, norm=norm, virtual_conversations=2, pad_id=PAD)
        for batch in batches:
            loss = micro_batch_loss(model, batch, "cpu")
            loss.backward()
            total += float(loss.detach())
    return total, torch.cat([parameter.grad.flatten().double() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("name", "norm", "dtype", "tolerance"),
    [
        ("llama", "token_mean", torch.float64, 1e-12),
        ("llama", "micro_mean", torch.float64, 1e-12),
        ("llama", "token_mean", torch.float32, 1e-6),
        ("opt", "token_mean", torch.float32, 1e-6),
        ("gpt-neox", "micro_mean", torch.float32, 1e-6),
    ],
)
def test_the_gradient_of_a_step_is_the_same_whatever_the_layout_the_ranks_and_the_passes(
    name: str, norm: LossNorm, dtype: torch.dtype, tolerance: float
) -> None:
    made = step_of_conversations()
    positions, lengths = np.arange(len(made)), np.array([len(ids) for ids, _ in made])
    padded, packed = untrained(ISOLATING[name](), dtype), untrained(ISOLATING[name](), dtype)
    use_packed_attention(packed, packed, "cpu")
    one_by_one = padded_plan(positions, ranks=1, conversations_per_row=1)
    loss, gradient = gradients(padded, made, one_by_one, norm)
    assert float(gradient.norm()) > 0
    cases = [
        (padded, padded_plan(positions, ranks=ranks, conversations_per_row=size))
        for ranks, size in product((1, 2, 3), (2, 5, 11))
    ] + [
        (packed, step_plan(positions, lengths, ranks=ranks, budget_tokens=budget))
        for ranks, budget in product((1, 2, 3, 16), (40, 90, 1000))
    ]
    assert {plan.passes for model, plan in cases if model is packed} >= {1, 2, 3}
    for model, plan in cases:
        found_loss, found = gradients(model, made, plan, norm)
        assert found_loss == pytest.approx(loss, rel=tolerance)
        assert float((found - gradient).norm()) <= tolerance * float(gradient.norm()), plan


@pytest.mark.parametrize("name", ["llama", "opt", "gpt-neox"])
def test_micro_mean_is_the_loss_of_the_models_own_code_averaged_over_micro_batches(name: str) -> None:
    """What the original computed: `labels` with -100 where nothing is learned, two conversations at a time."""
    made, model = step_of_conversations(), untrained(ISOLATING[name]())
    means = []
    for start in range(0, len(made), 2):
        pair = [
            (torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(mask)) for ids, mask in made[start : start + 2]
        ]
        input_ids = pad_sequence([ids for ids, _ in pair], batch_first=True, padding_value=PAD)
        labels = pad_sequence([ids.where(mask > 0, -100) for ids, mask in pair], batch_first=True, padding_value=-100)
        seen = pad_sequence([torch.ones_like(ids) for ids, _ in pair], batch_first=True)
        means.append(model(input_ids=input_ids, attention_mask=seen, labels=labels).loss)
    wanted = torch.stack(means).mean()
    wanted.backward()
    wanted_gradient = torch.cat([parameter.grad.flatten().double() for parameter in model.parameters()])
    use_packed_attention(model, model, "cpu")
    lengths = np.array([len(ids) for ids, _ in made])
    plan = step_plan(np.arange(len(made)), lengths, ranks=3, budget_tokens=90)
    loss, gradient = gradients(model, made, plan, "micro_mean")
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-6)
    assert float((gradient - wanted_gradient).norm()) <= 1e-5 * float(wanted_gradient.norm())
