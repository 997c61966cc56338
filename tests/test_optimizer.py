import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconverge.policy.optimizer import one_cycle


def test_a_cycle_of_ten_updates() -> None:
    """Warm-up over 2 of 10: 1/25, half way up, the peak, then down a half cosine to 0."""
    shares = [one_cycle(update, 10, 0.2) for update in range(11)]
    assert shares[:3] == pytest.approx([0.04, 0.52, 1.0])
    assert shares[6] == pytest.approx(0.5)
    assert shares[10] == pytest.approx(0)
    assert shares[3] == pytest.approx((1 + math.cos(math.pi / 8)) / 2)


@given(st.integers(1, 500), st.floats(0, 1))
def test_it_stays_between_zero_and_the_peak(updates: int, warmup: float) -> None:
    assert all(0 <= one_cycle(update, updates, warmup) <= 1 for update in range(updates + 1))
