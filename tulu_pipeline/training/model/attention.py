"""Attention in which the conversations of an end-to-end row do not see each other.

It is registered with transformers, so it serves every architecture that lets its attention be chosen (Llama, OPT,
GPT-NeoX and most others). What isolates is not a mask that a model may or may not build, but where each conversation
begins, handed through the model down to here; a model that loses it on the way fails in its first pass.

Shapes: B rows, always 1; H heads; T tokens of the row; D size of a head; V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tulu_pipeline.errors import BadInput
from tulu_pipeline.training.batching.plans import position_ids, row_boundaries

# Transformers takes names with `flash`, `flex`, `sdpa` or a slash for its own.
PACKED, PACKED_UNFUSED = "tulu_packed", "tulu_packed_unfused"
_PROBE_LENGTHS = (5, 3, 9)
# Of the largest logit. In fp32 rounding comes to 4e-6 in 32 untrained layers, a convolution over one boundary to 3e-4;
# in bf16, with 8 bits to a number, each layer rounds.
_TOLERANCES = {torch.float64: 1e-10, torch.float32: 3e-5, torch.bfloat16: 4e-2}
# Soft caps of scores (Gemma 2), sinks (gpt-oss), biases by distance: a short probe need not show the first.
_LACKING = ("softcap", "s_aux", "position_bias")
_FIX = 'write layout = "padded" in the profile'


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    fused: bool = True,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each conversation of a row; transformers calls it in every layer.

    Torch's flash attention for rows of many lengths where the GPU has it and it is not forbidden (`fused`), else
    conversation by conversation: neither makes a mask of T x T.

    Raises:
        BadInput: the model did not hand on where the conversations begin, or its attention does what this does not.
    """
    name = type(module).__name__
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None:
        raise BadInput(f"`{name}` is not told where conversations begin", "layout `step`", _FIX)
    lacking = [option for option in _LACKING if others.get(option) is not None]
    if lacking:
        raise BadInput(f"`{name}` wants `{lacking[0]}`, which rows end to end do not have", "layout `step`", _FIX)
    window = None if sliding_window is None or sliding_window >= max_length_q else sliding_window
    sizes = query_BHTD.shape[-1], value_BHTD.shape[-1]
    if fused and dropout == 0.0 and window is None and has_varlen(query_BHTD.device, query_BHTD.dtype, *sizes):
        query_THD, key_THD, value_THD = (each[0].transpose(0, 1) for each in (query_BHTD, key_BHTD, value_BHTD))
        out_THD = varlen_attn(
            query_THD,
            key_THD,
            value_THD,
            cu_seq_lens_q,
            cu_seq_lens_q,
            max_length_q,
            max_length_q,
            scale=scaling,
            window_size=(-1, 0),
            enable_gqa=query_THD.shape[1] != key_THD.shape[1],
        )
        return out_THD[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(each.split(lengths, dim=2) for each in (query_BHTD, key_BHTD, value_BHTD)), strict=True)
    outs = [_causal(query, key, value, window, scaling, dropout).transpose(1, 2) for query, key, value in parts]
    return torch.cat(outs, dim=1), None


AttentionInterface.register(PACKED, packed_attention)
AttentionInterface.register(PACKED_UNFUSED, partial(packed_attention, fused=False))


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    window: int | None,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    length = query.shape[2]
    mask = None
    if window is not None and window < length:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def has_varlen(device: torch.device | str, dtype: torch.dtype, size: int, value_size: int) -> bool:
    """Whether flash attention computes heads of these sizes: it wants an Ampere GPU or newer and half precision."""
    return (
        torch.device(device).type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and size % 8 == 0
        and size <= 256
        and value_size == size
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def row_inputs(boundaries: npt.NDArray[np.int32], device: torch.device | str) -> dict[str, Any]:
    """What a model takes, beside the ids, for an end-to-end row with these boundaries (`plans.row_boundaries`)."""
    lengths = np.diff(boundaries)
    starts = torch.from_numpy(boundaries).to(device, non_blocking=True)
    longest = int(lengths.max())
    return {
        "position_ids": torch.from_numpy(position_ids(lengths))[None].to(device, non_blocking=True),
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def use_packed_attention(
    model: Any, forward: Callable[..., Any], device: torch.device | str, *, fused: bool = True
) -> None:
    """Give a model this attention, after seeing that it isolates: in a row, logits are those of each one alone.

    Alone means with the attention that the model came with, so what that does beyond ours (sinks, biases) is found
    too.

    Args:
        model: of transformers.
        forward: calls it; under ZeRO-3 it is the engine, and all ranks call this together.
        device: of the model.
        fused: whether a fused kernel may compute it.

    Raises:
        BadInput: conversations of a row would see each other in this model, or its attention cannot be chosen.
    """
    name = PACKED if fused else PACKED_UNFUSED
    kind, own, was_training = model.config.model_type, model.config._attn_implementation, model.training
    generator = np.random.default_rng(0)
    entries = model.config.get_text_config().vocab_size
    probes = [torch.from_numpy(generator.integers(0, entries, (1, size))).to(device) for size in _PROBE_LENGTHS]
    boundaries = row_boundaries(np.array(_PROBE_LENGTHS))
    model.eval()
    with torch.no_grad():
        alone_TV = torch.cat([forward(input_ids=probe, use_cache=False).logits[0] for probe in probes])
        model.set_attn_implementation(name)
        if model.config._attn_implementation != name:
            raise BadInput(f"the attention of `{kind}` cannot be chosen", "layout `step`", _FIX)
        try:
            row = row_inputs(boundaries, device)
            together_TV = forward(input_ids=torch.cat(probes, dim=1), use_cache=False, **row).logits[0]
        except TypeError as error:
            what = f"`{kind}` does not take rows of several conversations: {error}"
            raise BadInput(what, "layout `step`", _FIX) from error
    difference = float((together_TV - alone_TV).abs().max() / alone_TV.abs().max())
    if not difference <= _TOLERANCES[together_TV.dtype]:
        raise BadInput(
            f"conversations of a row see each other in `{kind}`, or its attention (`{own}`) is of a kind of its own: "
            f"logits differ by {difference:.1e} of the largest",
            "layout `step`",
            _FIX,
        )
    model.train(was_training)
