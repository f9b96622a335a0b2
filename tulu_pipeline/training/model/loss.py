"""The loss of one forward pass: negative log likelihoods times the weights of their tokens, summed.

Shapes: B conversations of a micro-batch, T tokens, P of their positions with a supervised token, V vocabulary,
N supervised tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tulu_pipeline.training.batching.batches import MicroBatch
from tulu_pipeline.training.model.attention import row_inputs
from tulu_pipeline.training.model.output_head import OutputHead


def micro_batch_loss(
    forward: Callable[..., Any], batch: MicroBatch, device: torch.device | str, head: OutputHead | None = None
) -> torch.Tensor:
    """What the micro-batch adds to the loss of its step.

    Args:
        forward: calls the model.
        batch: the micro-batch.
        device: of the model.
        head: of the model, where it can be asked for the loss; without it all logits are there at a time.
    """
    input_ids_BT = torch.from_numpy(batch.input_ids).to(device, non_blocking=True)
    weights_BT = torch.from_numpy(batch.weights).to(device, non_blocking=True)
    layout: dict[str, Any] = {}
    if batch.attention_mask is not None:
        layout["attention_mask"] = torch.from_numpy(batch.attention_mask).to(device, non_blocking=True)
    if batch.boundaries is not None:
        layout |= row_inputs(batch.boundaries, device)
    # Logits only where some conversation of the micro-batch has a token to predict next (P of T positions).
    kept_P = (weights_BT[:, 1:] > 0).any(dim=0).nonzero().squeeze(1)
    weights_BP, targets_BP = weights_BT[:, kept_P + 1], input_ids_BT[:, kept_P + 1]
    inputs = {"input_ids": input_ids_BT, "use_cache": False, "logits_to_keep": kept_P, **layout}
    if head is not None:
        with head.asked_for_loss(targets_BP, weights_BP):
            loss: torch.Tensor = forward(**inputs).logits
        return loss
    logits_BPV = forward(**inputs).logits
    if len(weights_BP) == 1:  # every kept position has a supervised token: nothing to pick, so nothing to copy
        logits_NV, targets_N, weights_N = logits_BPV[0], targets_BP[0], weights_BP[0]
    else:
        supervised_BP = weights_BP > 0
        logits_NV, targets_N, weights_N = (each[supervised_BP] for each in (logits_BPV, targets_BP, weights_BP))
    wide = torch.promote_types(logits_NV.dtype, torch.float32)  # half precision is too coarse for a sum over V
    nll_N = torch.nn.functional.cross_entropy(logits_NV.to(wide), targets_N, reduction="none")
    return (nll_N * weights_N).sum()
