"""The loss at the output head is the loss of all logits, without all logits; and activations computed twice."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from tulu_pipeline.training.batching.batches import MicroBatch, step_batches  # noqa: E402
from tulu_pipeline.training.batching.plans import padded_plan, step_plan  # noqa: E402
from tulu_pipeline.training.model.attention import use_packed_attention  # noqa: E402
from tulu_pipeline.training.model.loss import micro_batch_loss  # noqa: E402
from tulu_pipeline.training.model.output_head import OutputHead, chunking_head  # noqa: E402

ENTRIES = 97
SMALL = {
    "vocab_size": ENTRIES,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 256, "init_std": 0.3, "dropout": 0.0}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "tied to the embeddings": lambda: transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "opt": lambda: transformers.OPTConfig(**SMALL, **OPT),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**SMALL),
    "with a bias": lambda: transformers.PhiConfig(**SMALL),
}
CHANGED = {
    "logits are scaled": lambda: transformers.GraniteConfig(**SMALL, logits_scaling=2.0),
    "logits are capped": lambda: transformers.Gemma2Config(
        **SMALL, num_key_value_heads=2, head_dim=8, final_logit_softcapping=30.0
    ),
}


def untrained(config: Any, dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def micro_batches(*, packed: bool, conversations: int = 7) -> list[MicroBatch]:
    generator = np.random.default_rng(5)
    made = []
    for length in generator.integers(6, 40, conversations):
        mask = (generator.random(length) < 0.6).astype(np.uint8)
        mask[-1] = 1
        made.append((generator.integers(1, ENTRIES, length).astype(np.uint16), mask))
    lengths, positions = np.array([len(ids) for ids, _ in made]), np.arange(conversations)
    plan = (
        step_plan(positions, lengths, ranks=1, budget_tokens=90)
        if packed
        else padded_plan(positions, ranks=1, conversations_per_row=3)
    )
    return step_batches(made, plan, lengths, rank=0, norm="token_mean", virtual_conversations=1, pad_id=0)[0]


def loss_and_gradient(model: Any, batches: list[MicroBatch], head: OutputHead | None, times: float = 1.0) -> Any:
    model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = micro_batch_loss(model, batch, "cpu", head)
        (loss * times).backward()
        total += float(loss.detach())
    return total, torch.cat([each.grad.double().flatten() for each in model.parameters() if each.grad is not None])


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_loss_and_gradient_are_those_of_all_logits(config: Any, packed: bool) -> None:
    model = untrained(config(), torch.float64)
    assert chunking_head(model, model, "cpu") is not None
    if packed:
        use_packed_attention(model, model, "cpu")
    batches = micro_batches(packed=packed)
    wanted_loss, wanted = loss_and_gradient(model, batches, None, times=3.0)
    for tokens in (1, 5, 1000):
        head = OutputHead(model.get_output_embeddings(), chunk_elements=tokens * ENTRIES)
        loss, found = loss_and_gradient(model, batches, head, times=3.0)
        assert loss == pytest.approx(wanted_loss, rel=1e-13)
        assert float((found - wanted).norm()) <= 1e-13 * float(wanted.norm())


def test_in_half_precision_it_is_as_near_to_the_exact_gradient_as_all_logits_are() -> None:
    batches = micro_batches(packed=False)
    model = untrained(CONFIGS["llama"](), torch.bfloat16)
    exact_loss, exact = loss_and_gradient(untrained(CONFIGS["llama"](), torch.bfloat16).double(), batches, None)
    errors = []
    for head in (None, OutputHead(model.get_output_embeddings(), chunk_elements=5 * ENTRIES)):
        loss, found = loss_and_gradient(model, batches, head)
        assert loss == pytest.approx(exact_loss, rel=1e-2)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[1] < 1.2 * errors[0]


def test_a_micro_batch_with_nothing_supervised_has_gradients_of_zero() -> None:
    model = untrained(CONFIGS["llama"]())
    ids = np.ones((1, 4), dtype=np.int64)
    nothing = MicroBatch(
        input_ids=ids, weights=np.zeros((1, 4), dtype=np.float32), attention_mask=np.ones_like(ids), boundaries=None
    )
    loss, gradient = loss_and_gradient(model, [nothing], OutputHead(model.get_output_embeddings()))
    assert loss == 0.0
    assert len(gradient) == sum(each.numel() for each in model.parameters())
    assert not gradient.any()


def test_no_more_logits_than_a_chunk_are_there_at_a_time() -> None:
    model = untrained(CONFIGS["llama"]())
    batches = micro_batches(packed=False)
    supervised = max(int((batch.weights > 0).sum()) for batch in batches)
    assert supervised > 20
    for head, rows in ((None, supervised), (OutputHead(model.get_output_embeddings(), 8 * ENTRIES), 8)):
        with _Widest() as seen:
            loss_and_gradient(model, batches, head)
        # What has V columns, and is not the head's weight, are logits or of their shape.
        assert seen.rows <= rows if head else seen.rows >= rows


@pytest.mark.parametrize("config", CHANGED.values(), ids=list(CHANGED))
def test_a_model_that_changes_its_logits_keeps_all_of_them(config: Any) -> None:
    model = untrained(config())
    assert chunking_head(model, model, "cpu") is None
    assert "forward" not in vars(model.get_output_embeddings())


def test_a_head_that_does_not_train_gets_no_gradient() -> None:
    model = untrained(CONFIGS["llama"]())
    layer = model.get_output_embeddings()
    layer.weight.requires_grad_(False)
    batches = micro_batches(packed=False)
    _, wanted = loss_and_gradient(model, batches, None)
    _, found = loss_and_gradient(model, batches, OutputHead(layer, 5 * ENTRIES))
    assert layer.weight.grad is None
    assert float((found - wanted).norm()) <= 1e-6 * float(wanted.norm())


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("config", [CONFIGS["llama"], CONFIGS["opt"], CONFIGS["gpt-neox"]])
def test_activations_computed_twice_give_the_same_gradient_and_take_less(config: Any, packed: bool) -> None:
    batches, found = micro_batches(packed=packed), {}
    for twice in (False, True):
        model = untrained(config()).train()
        if packed:
            use_packed_attention(model, model, "cpu")
        if twice:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        kept = 0

        def keep(tensor: Any) -> Any:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        weights = sum(each.numel() for each in model.parameters())
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            micro_batch_loss(model, batches[0], "cpu")
        found[twice] = kept - weights, *loss_and_gradient(model, batches, None)
    assert found[True][1] == found[False][1]
    assert float((found[True][2] - found[False][2]).norm()) <= 1e-6 * float(found[False][2].norm())
    assert found[True][0] < 0.5 * found[False][0]


class _Widest(TorchDispatchMode):
    """Most rows of a tensor of `ENTRIES` columns."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor) and each.ndim > 1 and each.shape[-1] == ENTRIES:
                if tuple(each.shape) == (SMALL["hidden_size"], ENTRIES):
                    continue
                self.rows = max(self.rows, each.numel() // ENTRIES)
        return out
