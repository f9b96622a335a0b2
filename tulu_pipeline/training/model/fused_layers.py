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
import torch.distributed as dist

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.training.launching.failures import cut

_PROBE_TOKENS = 17
# Of the largest logit, as for attention: in bf16 each layer rounds.
_TOLERANCES = {torch.float32: 3e-5, torch.bfloat16: 4e-2}
_ABSENT = object()


class FusedLayers:
    """Liger's layers for one model: put in place of its own, and taken out again."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._own: list[tuple[dict[str, Any], str, Any]] = []

    def __bool__(self) -> bool:
        """Whether any are in place: Liger does not know every architecture."""
        return bool(self._own)

    def put_in(self) -> None:
        """Exchange what Liger has; what is raised on the way leaves the rest to `remove`."""
        from liger_kernel.transformers import _apply_liger_kernel_to_instance  # what transformers' trainer calls too

        # It exchanges methods of the instance, and functions and classes of the module that defines it.
        defines_it = sys.modules[type(self._model).__module__]
        holders = [each.__dict__ for each in (defines_it, *self._model.modules())]
        before = [dict(holder) for holder in holders]
        try:
            _apply_liger_kernel_to_instance(self._model, cross_entropy=False, fused_linear_cross_entropy=False)
        finally:
            self._own = [
                (holder, name, own.get(name, _ABSENT))
                for holder, own in zip(holders, before, strict=True)
                for name in holder
                if holder[name] is not own.get(name, _ABSENT)
            ]

    def remove(self) -> None:
        """Give the model back what it came with: a model without them can be loaded in this process then."""
        for holder, name, own in self._own:
            if own is _ABSENT:
                del holder[name]
            else:
                holder[name] = own
        self._own = []


def use_fused_layers(model: Any, forward: Callable[..., Any], device: torch.device | str) -> FusedLayers | None:
    """Give a model these layers, if there are any for it, they run, and its logits on a probe stay what they were.

    The same on all ranks. Why they are not taken is a note.

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
    layers = FusedLayers(model.get_base_model() if hasattr(model, "get_base_model") else model)
    was_training, problem = model.training, ""
    model.eval()
    with torch.no_grad():
        own_BTV = forward(input_ids=ids_BT, use_cache=False).logits
        try:
            layers.put_in()
            if layers:
                difference_BTV = (forward(input_ids=ids_BT, use_cache=False).logits - own_BTV).abs()
                share = float(difference_BTV.max() / own_BTV.abs().max())
                if not share <= _TOLERANCES.get(own_BTV.dtype, 0.0):
                    problem = f"logits differ by {share:.1e} of the largest"
        except Exception as error:  # noqa: BLE001 - no compiler, another release of transformers: each has its own
            problem = f"{type(error).__name__}: {cut(str(error))}"
    model.train(was_training)
    if problem and (not dist.is_initialized() or dist.get_rank() == 0):
        emit({"event": "note", "text": f"Liger's layers are not taken: {problem}"})
    if not _on_all_ranks(bool(layers) and not problem, device):
        layers.remove()
    return layers or None


def _runs_triton(device: torch.device | str) -> bool:
    if torch.device(device).type == "cuda":
        return True
    from triton import knobs  # Liger requires it

    return bool(knobs.runtime.interpret)


def _on_all_ranks(holds: bool, device: torch.device | str) -> bool:
    if not dist.is_initialized():
        return holds
    everywhere = torch.tensor(float(holds), device=device)
    dist.all_reduce(everywhere, op=dist.ReduceOp.MIN)
    return bool(everywhere)
