"""Intervals against closed forms worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconverge.eval.intervals import combined_rates, mean_interval, paired_difference, wilson

Z95 = 1.959963984540054


def test_wilson_at_zero_successes_is_z2_over_n_plus_z2() -> None:
    low, high = wilson(0, 20)
    assert low == 0.0
    assert high == pytest.approx(Z95**2 / (20 + Z95**2))


def test_wilson_at_one_half_is_symmetric() -> None:
    low, high = wilson(10, 20)
    half_width = 0.5 * Z95 / math.sqrt(20 + Z95**2)  # p = 1/2 collapses the formula
    assert (low, high) == (pytest.approx(0.5 - half_width), pytest.approx(0.5 + half_width))


def test_wilson_bounds_solve_the_score_equation() -> None:
    for bound in wilson(17, 20):
        assert abs(0.85 - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / 20))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_mirrors(case: tuple[int, int]) -> None:
    successes, episodes = case
    low, high = wilson(successes, episodes)
    assert 0 <= low <= successes / episodes <= high <= 1
    mirrored = wilson(episodes - successes, episodes)
    assert (1 - mirrored[1], 1 - mirrored[0]) == (pytest.approx(low), pytest.approx(high))


def test_wilson_without_episodes_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("case", [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(case: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(*case)


def test_one_rate_combined_is_wilson() -> None:
    interval = combined_rates([1.0], [17], [20])
    assert (interval.low, interval.high) == (pytest.approx(wilson(17, 20)[0]), pytest.approx(wilson(17, 20)[1]))


def test_a_difference_of_rates_is_newcombes_interval() -> None:
    # Newcombe (1998), method 10: 56/70 - 48/80 = 0.2, interval 0.0524 to 0.3339.
    interval = combined_rates([1.0, -1.0], [56, 48], [70, 80])
    assert tuple(interval[:3]) == (pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    with pytest.raises(ValueError, match="without episodes"):
        combined_rates([1.0], [0], [0])


def test_mean_interval_of_two_values_uses_t_of_one_degree() -> None:
    interval = mean_interval([0.0, 2.0])  # s = sqrt 2, standard error 1, t(1) = tan(0.95 pi / 2)
    assert interval.mean == 1.0
    assert interval.high - 1.0 == pytest.approx(math.tan(0.95 * math.pi / 2))
    assert interval.low == pytest.approx(2.0 - interval.high)


def test_mean_interval_leaves_out_what_was_not_measured() -> None:
    assert mean_interval([0.0, math.nan, 2.0]) == mean_interval([0.0, 2.0])
    alone = mean_interval([0.4])
    assert (alone.mean, alone.size) == (0.4, 1) and math.isnan(alone.low)
    assert mean_interval([]).size == 0


def test_pairs_cancel_what_they_share() -> None:
    interval = paired_difference([0.5, 0.9, 0.1], [0.4, 0.8, 0.0])
    assert interval.mean == pytest.approx(0.1)
    assert interval.high - interval.low == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([0.1], [0.1, 0.2])
