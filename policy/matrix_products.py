"""Large float32 matrix products by oneDNN instead of BLAS, for training on a CPU.

PyTorch sends float32 products to MKL, which leaves half of what AVX-512 can do unused on processors that are not Intel's: 110
GFLOP/s instead of 245 on a core of the AMD EPYC of docs/performance.md. The way to oneDNN is the setting that *allows* bfloat16 inside
a product. Processors with AMX then do use bfloat16, others compute in float32; so it is used only where a product was seen to be
as exact as float32 makes it.

Acting stays with BLAS. A row comes out of oneDNN in other last bits than out of BLAS, and batches shrink as episodes end to sizes at
which oneDNN is slower. So do products of a matrix and a vector, at which it is slower by far.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch

FLOAT32_ERROR = 1e-5
"""Of a product of standard normal (256, 256) matrices, relative to its size: float32 makes 3e-7, bfloat16 3e-3."""


@contextmanager
def large_products() -> Iterator[None]:
    """Within it, or in a function that it decorates, matrices are multiplied by oneDNN, on a CPU on which that changes round-off only."""
    with _by_onednn() if exact_by_onednn() else nullcontext():
        yield


@contextmanager
def _by_onednn() -> Iterator[None]:
    setting = _setting()
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


@lru_cache(maxsize=1)
def exact_by_onednn() -> bool:
    """Whether this PyTorch has the setting and products under it are float32."""
    if _setting() is None or not torch.backends.mkldnn.is_available():
        return False
    left, right = (torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    exact = left.double() @ right.double()
    with _by_onednn():
        return bool((left @ right - exact).norm() < FLOAT32_ERROR * exact.norm())


def _setting() -> Any:
    """The precision of products inside oneDNN; None before PyTorch 2.9."""
    return getattr(torch.backends.mkldnn, "matmul", None)
