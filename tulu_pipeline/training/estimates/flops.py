"""How many floating-point operations training takes, and how many a device can do: what MFU is made of.

Counted are the matrix products, a multiplication and an addition for each weight; the rest is below a percent.
Padding is no use, so it is not counted, and a causal model computes only what a token may see, so attention is counted
over pairs of tokens that see each other. MFU as Chowdhery et al. define it (PaLM, arXiv:2204.02311, appendix B) counts
attention over all pairs; for 2,048 tokens of a 7B model that makes 3.9 % more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tulu_pipeline.training.estimates.shape import ModelShape
from tulu_pipeline.training.estimates.shape import model_shape as model_shape

_TERA = 1e12
# Dense bf16 of the vendors' data sheets (which print twice as much with sparsity, from Ampere on), by what torch calls
# the device. The first name that is part of the device's wins, so variants stand before what they are variants of.
_PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500.0),
    ("B200", 2250.0),
    ("GH200", 989.4),
    ("H200 NVL", 835.5),
    ("H200", 989.4),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.5),
    ("H100", 989.4),
    ("H800 PCIe", 756.5),
    ("H800", 989.4),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A30", 165.0),
    ("A40", 149.7),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("RTX A6000", 154.8),
    ("RTX 6000 Ada", 364.2),
    ("L40S", 362.05),
    ("L40", 181.05),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
    ("MI300X", 1307.4),
    ("MI325X", 1307.4),
    ("MI250X", 191.5),  # of one of its two dies, which is what torch shows as a device
    ("MI250", 181.0),
    ("MI210", 181.0),
)


def peak_flops(device_name: str) -> float | None:
    """Floating-point operations per second of a device in bf16, dense; None where the data sheet is not known here.

    A slice of a GPU (MIG) has a part of the peak that its name does not say: None too.

    Args:
        device_name: as `torch.cuda.get_device_name` says, such as `NVIDIA H100 80GB HBM3`.
    """
    if " MIG " in device_name:
        return None
    words = f" {device_name.replace('-', ' ').replace('_', ' ')} "
    for name, tera in _PEAK_TFLOPS:
        if f" {name} " in words:
            return tera * _TERA
    return None


def training_flops(
    shape: ModelShape,
    lengths: npt.ArrayLike,
    *,
    adapter_parameters: int = 0,
    recompute: bool = False,
) -> float:
    """Floating-point operations of training once on conversations with these lengths, each seen by itself.

    The forward pass takes two operations per weight and token, the gradients of activations two, and those of trained
    weights two: 6N (Kaplan et al., Scaling laws, arXiv:2001.08361, section 2.1). With adapters the base weights have no
    gradients of their own.

    Args:
        shape: of the model.
        lengths: tokens of each conversation, without padding.
        adapter_parameters: low-rank adapters that are trained in place of all weights; 0 trains all weights.
        recompute: count the second forward pass of gradient checkpointing too: what the hardware does, not what is of
            use; for MFU leave it out.
    """
    tokens = float(np.sum(np.asarray(lengths, dtype=np.float64)))
    weights = shape.multiplied_parameters + adapter_parameters
    trained = adapter_parameters or weights
    flops = tokens * (4.0 * weights + 2.0 * trained)
    attention = _attention_flops(shape, lengths)
    flops += 3.0 * attention
    if recompute:
        blocks = weights - shape.head.inputs * shape.head.outputs
        flops += tokens * 2.0 * blocks + attention
    return flops


def flops_per_token(shape: ModelShape, length: int, *, adapter_parameters: int = 0, recompute: bool = False) -> float:
    """`training_flops` of one conversation of `length` tokens, for each of them."""
    return training_flops(shape, [length], adapter_parameters=adapter_parameters, recompute=recompute) / length


def _attention_flops(shape: ModelShape, lengths: npt.ArrayLike) -> float:
    """Of a forward pass: each query times each key it sees, and the weights times the values."""
    sizes = np.asarray(lengths, dtype=np.float64)
    per_pair = 4.0 * shape.heads * shape.head_size
    full = float(np.sum(sizes * (sizes + 1) / 2))
    pairs = (shape.layers - shape.windowed_layers) * full
    if shape.windowed_layers:
        seen = np.minimum(sizes, shape.window)
        pairs += shape.windowed_layers * float(np.sum(seen * (seen + 1) / 2 + (sizes - seen) * shape.window))
    return per_pair * pairs
