"""Intervals against closed forms worked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

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


def test_a_mean_over_tasks_is_one_rate_over_all_their_episodes() -> None:
    """However the successes lie among ten tasks of 20 episodes; and a task of weight 0 changes nothing."""
    even, uneven = combined_rates([0.1] * 10, [18] * 10, [20] * 10), combined_rates([0.1] * 10, [20] * 9 + [0], [20] * 10)
    assert even[:3] == uneven[:3] == pytest.approx((0.9, *wilson(180, 200)))
    assert combined_rates([1.0, 0.0], [17, 3], [20, 20])[:3] == pytest.approx((0.85, *wilson(17, 20)))
    assert combined_rates([0.0], [17], [20])[:3] == (0.0, 0.0, 0.0)
    # Weights 3/4 and 1/4 of 20 episodes: as many as 1 / (9/16 + 1/16) * 20 = 32 of equal weight.
    unequal = combined_rates([0.75, 0.25], [10, 10], [20, 20])
    assert unequal[:3] == pytest.approx((0.5, *wilson(16, 32)))


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.95, 0.98, 0.99, 0.995])
def test_the_interval_of_a_mean_over_tasks_holds_the_truth_as_often_as_it_says(rate: float) -> None:
    """Ten tasks of 20 episodes with one true rate: exact, since the interval depends on the sum of successes alone."""
    held = 0.0
    for successes in range(201):
        split = [successes // 10 + (task < successes % 10) for task in range(10)]
        interval = combined_rates([0.1] * 10, split, [20] * 10)
        held += float(binom.pmf(successes, 200, rate)) * (interval.low <= rate <= interval.high)
    assert held > 0.92


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
    agreed = mean_interval([1.0, 1.0])
    assert (agreed.mean, agreed.size) == (1.0, 2) and math.isnan(agreed.low) and math.isnan(agreed.high)


def test_pairs_cancel_what_they_share() -> None:
    interval = paired_difference([0.5, 0.9, 0.1], [0.4, 0.8, 0.0])
    assert interval.mean == pytest.approx(0.1)
    assert math.isnan(interval.low) and math.isnan(interval.high)  # three seeds that agree are not certainty
    shared, apart = paired_difference([0.5, 0.9, 0.1], [0.4, 0.8, 0.1]), mean_interval([0.5, 0.9, 0.1])
    assert shared.high - shared.low < 0.3 * (apart.high - apart.low)
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([0.1], [0.1, 0.2])


def test_every_interval_has_the_confidence_that_is_asked_for() -> None:
    z50 = 0.6744897501960817
    low, high = wilson(10, 20, 0.5)
    assert high - 0.5 == pytest.approx(0.5 * z50 / math.sqrt(20 + z50**2))
    assert combined_rates([1.0], [10], [20], 0.5)[1:3] == pytest.approx((low, high))
    assert mean_interval([0.0, 2.0], 0.5)[:3] == pytest.approx((1.0, 0.0, 2.0))  # t(1) at 75 % is tan(pi / 4) = 1
    assert paired_difference([0.0, 2.0], [0.0, 0.0], 0.5)[:3] == pytest.approx((1.0, 0.0, 2.0))


def test_the_size_of_combined_rates_is_their_episodes() -> None:
    assert combined_rates([0.5, 0.5], [1, 2], [10, 30]).size == 40


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_lies_between_nothing_and_all(confidence: float) -> None:
    for interval in (lambda: wilson(1, 2, confidence), lambda: mean_interval([1.0, 2.0], confidence)):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            interval()
