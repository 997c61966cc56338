"""Products by oneDNN: float32, only where they are asked for, and the setting is put back."""

from __future__ import annotations

import pytest
import torch

from reconverge.policy import matrix_products
from reconverge.policy.exact_arithmetic import set_arithmetic
from reconverge.policy.matrix_products import large_products


@pytest.fixture
def setting() -> object:
    setting = getattr(torch.backends.mkldnn, "matmul", None)
    if setting is None or not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN, or no setting of its precision")
    return setting


def test_a_gpu_is_told_to_compute_in_float32_and_the_same_each_time() -> None:
    set_arithmetic(torch.get_num_threads())
    assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.deterministic


def test_products_are_as_exact_as_float32_is() -> None:
    left, right = (torch.randn(300, 500, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in range(2))
    with large_products():
        product = left.float() @ right.float().T
    assert (product - left @ right.T).norm() < 1e-6 * product.norm()


def test_the_setting_is_put_back_whatever_happens(setting: object) -> None:
    before = setting.fp32_precision  # type: ignore[attr-defined]

    @large_products()
    def fail() -> None:
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()
        assert setting.fp32_precision == before  # type: ignore[attr-defined]


def test_nothing_is_set_where_products_would_be_less_exact(setting: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor whose oneDNN does compute with bfloat16 when it may: no product is within an error of nothing."""
    monkeypatch.setattr(matrix_products, "FLOAT32_ERROR", 0.0)
    matrix_products.exact_by_onednn.cache_clear()
    before = setting.fp32_precision  # type: ignore[attr-defined]
    with large_products():
        assert setting.fp32_precision == before  # type: ignore[attr-defined]
    matrix_products.exact_by_onednn.cache_clear()
