"""Liger's kernels for a model's norms, rotary embedding and gated feed-forward.

Each is one kernel forward and one backward instead of several, and keeps less in between. They are Triton programs,
which GPUs run, and Triton's interpreter anywhere (slowly, for tests).

Shapes: B conversations, always 1; T tokens; V vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

_PROBE_TOKENS = 17
# Of the largest logit, as for attention: in bf16 each layer rounds.
_TOLERANCES = {torch.float32: 3e-5, torch.bfloat16: 4e-2}
_ABSENT = object()


class FusedLayers:
    """What Liger put in place of a model's own, and how to take it out again."""

    def __init__(self, model: Any) -> None:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance  # what transformers' trainer calls too

        # It exchanges methods of the instance, and functions and classes of the module that defines it.
        holders = [vars(sys.modules[type(model).__module__]), *(vars(module) for module in model.modules())]
        before = [dict(holder) for holder in holders]
        _apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)
        self._own = [
            (holder, name, own.get(name, _ABSENT))
            for holder, own in zip(holders, before, strict=True)
            for name in holder
            if holder[name] is not own.get(name, _ABSENT)
        ]

    def __bool__(self) -> bool:
        """Whether it put anything there: it does not know every architecture."""
        return bool(self._own)

    def remove(self) -> None:
        """Give the model back what it came with: a model without them can be loaded in this process then."""
        for holder, name, own in self._own:
            if own is _ABSENT:
                del holder[name]
            else:
                holder[name] = own
        self._own = []


def use_fused_layers(model: Any, forward: Callable[..., Any], device: torch.device | str) -> FusedLayers | None:
    """Give a model these layers, if there are any for it, and its logits on a probe stay what they were.

    Args:
        model: of transformers, or of peft around one.
        forward: calls it; under ZeRO-3 it is the engine, and all ranks call this together.
        device: of the model.
    """
    if find_spec("liger_kernel") is None or not _runs_triton(device):
        return None
    generator = np.random.default_rng(1)
    entries = model.config.get_text_config().vocab_size
    ids_BT = torch.from_numpy(generator.integers(0, entries, (1, _PROBE_TOKENS))).to(device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        own_BTV = forward(input_ids=ids_BT, use_cache=False).logits
        layers = FusedLayers(model.get_base_model() if hasattr(model, "get_base_model") else model)
        if layers:
            difference_BTV = (forward(input_ids=ids_BT, use_cache=False).logits - own_BTV).abs()
            if not difference_BTV.max() <= _TOLERANCES.get(own_BTV.dtype, 0.0) * own_BTV.abs().max():
                layers.remove()
    model.train(was_training)
    return layers or None


def _runs_triton(device: torch.device | str) -> bool:
    if torch.device(device).type == "cuda":
        return True
    from triton import knobs  # Liger requires it

    return bool(knobs.runtime.interpret)
