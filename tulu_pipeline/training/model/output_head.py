"""The loss taken at the output head, for some tokens at a time, so that their logits are never there together.

With a vocabulary of 32,000 the logits of 8,192 tokens, their probabilities and gradients are 2 to 4 GB; here they are
bounded whatever the row's length. Loss and gradients are computed in the same pass, so nothing is computed twice.

Shapes: B conversations of a micro-batch, P of their positions, N supervised tokens, C tokens of a chunk, V vocabulary,
H size of a hidden state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn import Linear

# Logits of one chunk: 128 MiB in fp32. A chunk of 1,024 tokens still fills a GPU at a vocabulary of 32,000.
_CHUNK_ELEMENTS = 2**25
_PROBE_TOKENS = 17
# Of the loss. In fp32 rounding comes to 1e-7 of it; in bf16 logits have 8 bits.
_TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}
_HALF_TOLERANCE = 1e-2


class OutputHead:
    """The output head of a model, which can be asked for a loss instead of logits.

    It is the head's own forward pass that is exchanged meanwhile: DeepSpeed, which gathers a split weight around a
    module's forward and backward pass, is none the wiser.

    Args:
        head: a linear layer.
        chunk_elements: logits that may be there at a time.
    """

    def __init__(self, head: Linear, chunk_elements: int = _CHUNK_ELEMENTS) -> None:
        self._head, self._chunk_elements = head, chunk_elements

    @contextmanager
    def asked_for_loss(self, targets_BP: torch.Tensor, weights_BP: torch.Tensor) -> Iterator[None]:
        """While the block runs, the model's `logits` are the sum over tokens of weight times negative log likelihood.

        Args:
            targets_BP: ids to be predicted, at the positions whose logits are kept.
            weights_BP: of each; 0 where there is none.
        """

        def loss(hidden_BPH: torch.Tensor) -> torch.Tensor:
            parts = (hidden_BPH, targets_BP, weights_BP)
            # A single row's kept positions all have a supervised token: nothing to pick, so nothing to copy.
            rows = 0 if len(weights_BP) == 1 else weights_BP > 0
            hidden_NH, targets_N, weights_N = (each[rows] for each in parts)
            head = self._head
            chunk = max(1, self._chunk_elements // head.out_features)
            wanted = torch.is_grad_enabled()
            return _WeightedLoss.apply(hidden_NH, head.weight, head.bias, targets_N, weights_N, chunk, wanted)

        self._head.forward = loss
        try:
            yield
        finally:
            del self._head.forward


def chunking_head(model: Any, forward: Callable[..., Any], device: torch.device | str) -> OutputHead | None:
    """The model's output head, if it is a linear layer and the model's logits are what comes out of it.

    Some models scale or cap them; in those the loss at the head is another one, which shows.

    Args:
        model: of transformers, or of peft.
        forward: calls it; under ZeRO-3 it is the engine, and all ranks call this together.
        device: of the model.
    """
    layer = model.get_output_embeddings()
    if not isinstance(layer, Linear):
        return None
    generator = np.random.default_rng(2)
    entries = model.config.get_text_config().vocab_size
    ids_BT = torch.from_numpy(generator.integers(0, entries, (1, _PROBE_TOKENS))).to(device)
    head = OutputHead(layer)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits_TV = forward(input_ids=ids_BT, use_cache=False).logits[0]
        wide = torch.promote_types(logits_TV.dtype, torch.float32)
        # A sum, so that it is far from where a cap is the identity.
        wanted = torch.nn.functional.cross_entropy(logits_TV.to(wide), ids_BT[0], reduction="sum")
        with head.asked_for_loss(ids_BT, torch.ones_like(ids_BT, dtype=wide)):
            found = forward(input_ids=ids_BT, use_cache=False).logits
    model.train(was_training)
    tolerance = _TOLERANCES.get(logits_TV.dtype, _HALF_TOLERANCE)
    alike = found.ndim == 0 and abs(float(found) - float(wanted)) <= tolerance * abs(float(wanted))
    return head if alike else None


class _WeightedLoss(torch.autograd.Function):  # type: ignore[misc]  # torch is seen as Any
    """Sum over tokens of weight times negative log likelihood; gradients are made with it, a chunk at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        targets_N: torch.Tensor,
        weights_N: torch.Tensor,
        chunk: int,
        wanted: bool,
    ) -> torch.Tensor:
        wide = torch.promote_types(hidden_NH.dtype, torch.float32)  # half precision is too coarse for a sum over V
        of_hidden, of_weight, of_bias = (wanted and each for each in ctx.needs_input_grad[:3])
        grad_hidden_NH = torch.zeros_like(hidden_NH) if of_hidden else None
        # Chunks are summed in fp32, as a single product would be.
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=wide) if of_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=wide) if of_bias and bias_V is not None else None
        total = torch.zeros((), dtype=wide, device=hidden_NH.device)
        for start in range(0, len(hidden_NH), chunk):
            part = slice(start, start + chunk)
            hidden_CH, targets_C1, weights_C = hidden_NH[part], targets_N[part, None], weights_N[part].to(wide)
            logits_CV = torch.nn.functional.linear(hidden_CH, weight_VH, bias_V).to(wide)
            log_sums_C1 = logits_CV.logsumexp(dim=1, keepdim=True)
            total += ((log_sums_C1 - logits_CV.gather(1, targets_C1))[:, 0] * weights_C).sum()
            if not (of_hidden or of_weight or of_bias):
                continue
            grad_CV = logits_CV.sub_(log_sums_C1).exp_()
            grad_CV.scatter_add_(1, targets_C1, torch.full_like(log_sums_C1, -1.0))
            grad_CV = grad_CV.mul_(weights_C[:, None]).to(hidden_NH.dtype)
            if grad_hidden_NH is not None:
                grad_hidden_NH[part] = grad_CV @ weight_VH
            if grad_weight_VH is not None:
                grad_weight_VH += grad_CV.T @ hidden_CH
            if grad_bias_V is not None:
                grad_bias_V += grad_CV.sum(dim=0, dtype=wide)
        ctx.gradients = (grad_hidden_NH, grad_weight_VH, grad_bias_V)
        ctx.dtypes = (hidden_NH.dtype, weight_VH.dtype, None if bias_V is None else bias_V.dtype)
        return total

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]  # torch is seen as Any
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        made = [
            None if each is None else each.mul_(grad.to(each.dtype)).to(dtype)
            for each, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        ctx.gradients = None  # scaled in place: a second pass through them would be wrong, and fails
        return (*made, None, None, None, None)
