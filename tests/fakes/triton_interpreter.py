"""Importing this lets Triton's kernels run on a CPU, one program after the other in numpy: for a process of its own.

It fills two gaps: a kernel that is compiled gets a float as a tensor, and CUDA's functions have a body.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is decorated

from typing import Any

import numpy as np
import triton
import triton.language as tl
from liger_kernel.ops import rms_norm
from triton.runtime import interpreter

_convert = interpreter._implicit_cvt


def _convert_floats_too(value: Any) -> Any:
    if type(value) is float:
        return tl.tensor(interpreter.TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)
    return _convert(value)


@triton.jit
def _rsqrt(x):  # type: ignore[no-untyped-def]
    return tl.rsqrt(x)


interpreter._implicit_cvt = _convert_floats_too
rms_norm.rsqrt = _rsqrt
