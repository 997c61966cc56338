"""Kaplan-Meier medians: the trace of the module by hand, censoring, and agreement with the ordinary lower median."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconverge.eval.survival import MedianUpdates, median_updates


def test_the_trace_of_the_module() -> None:
    found = median_updates([2, 2, 6, 10, 50, None, None], [1000] * 7)
    assert found == MedianUpdates(10, 2, None, size=7, never=2, last=1000)


def test_the_interval_is_the_log_log_one_by_hand() -> None:
    # 20 of 24 at 2, the others at 10. S(2) = 1/6, Greenwood's sum 20 / (24 * 4), so the bounds are (1/6) ^ exp(-+1.96 sqrt(sum) / ln 6).
    assert (1 / 6) ** math.exp(-1.96 * math.sqrt(20 / 96) / math.log(6)) < 0.5
    assert median_updates([2] * 20 + [10] * 4, [1000] * 24)[:3] == (2, 2, 2)
    # 6 of 10 at 2: S(2) = 0.4 and its upper bound 0.67, so the median may also be 10.
    assert (0.4) ** math.exp(-1.96 * math.sqrt(6 / 40) / -math.log(0.4)) > 0.5
    assert median_updates([2] * 6 + [10] * 4, [1000] * 10)[:3] == (2, 2, 10)


def test_the_interval_is_not_greenwoods_plain_one_and_has_the_confidence_that_is_asked_for() -> None:
    # S(2) = 5/6; log-log lower bound (5/6)^exp(1.96 sqrt(1/60) / 0.1823) = 0.48, the plain one 0.833 - 0.211 = 0.62.
    assert median_updates([2] * 2 + [10] * 10, [1000] * 12)[:3] == (10, 2, 10)
    # S(2) = 0.3; log-log upper bound 0.3^exp(-z 0.483 / 1.204): 0.58 at 95 %, 0.40 at 50 %.
    updates, last = [2] * 7 + [10] * 3, [1000] * 10
    assert median_updates(updates, last)[:3] == (2, 2, 10)
    assert median_updates(updates, last, confidence=0.5)[:3] == (2, 2, 2)


def test_the_last_look_is_the_latest_anywhere() -> None:
    assert median_updates([2, 6], [400, 1000]).last == 1000


def test_an_observation_that_ended_early_is_not_a_recovery() -> None:
    # At risk 4, 4 -> 3/4 at 2; one leaves at 5; at risk 2 -> 3/8 at 10.
    assert median_updates([2, None, 10, None], [20, 5, 20, 20])[:1] == (10,)


def test_more_than_half_never_has_no_median() -> None:
    assert median_updates([2] + [None] * 19, [400] * 20) == MedianUpdates(None, None, None, 20, 19, 400)
    assert median_updates([], []) == MedianUpdates(None, None, None, 0, 0, 0)


@pytest.mark.parametrize(("entries", "bound"), [(1, None), (5, None), (6, 2), (200, 2)])
def test_few_equal_values_leave_the_median_open_at_both_ends(entries: int, bound: float | None) -> None:
    assert median_updates([2] * entries, [1000] * entries)[:3] == (2, bound, bound)  # 0.025^(1/5) = 0.48, 0.025^(1/6) = 0.54


def test_the_bounds_of_few_entries_hold_what_they_promise() -> None:
    """Among all samples of n of the updates 1 to 9, equally likely, the lower bound lies above the true median, 5, in at most 2.5 %."""
    drawn = np.random.default_rng(0).integers(1, 10, (2000, 8))
    for size in range(1, 9):
        lows = [median_updates(sample[:size].tolist(), [9] * size).low for sample in drawn]
        assert np.mean([low is not None and low > 5 for low in lows]) <= 0.03, size


def test_an_upper_bound_rests_on_those_that_were_still_looked_at() -> None:
    """All five that are looked at until 2000 are back there; of fifteen others nothing is known after 20."""
    assert median_updates([2000] * 5 + [None] * 15, [2000] * 5 + [20] * 15).high is None
    assert median_updates([2000] * 6 + [None] * 15, [2000] * 6 + [20] * 15).high == 2000


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one last point per recovery"):
        median_updates([2, 3], [10])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([2, 6, 10, 50, 400])), min_size=1, max_size=30))
def test_the_median_lies_in_its_interval(entries: list[tuple[bool, int]]) -> None:
    updates, last = [time if back else None for back, time in entries], [time for _, time in entries]
    low, high = (math.inf if bound is None else bound for bound in median_updates(updates, last)[1:3])
    low = -math.inf if len(entries) < 6 else low
    median = median_updates(updates, last).median
    assert low <= (math.inf if median is None else median) <= high


@given(st.lists(st.sampled_from([2, 6, 10, 50, None]), min_size=1, max_size=30))
def test_with_one_common_end_it_is_the_lower_median_with_never_last(updates: list[int | None]) -> None:
    ordered = sorted(math.inf if update is None else update for update in updates)
    median = median_updates(updates, [400] * len(updates)).median
    assert (math.inf if median is None else median) == ordered[(len(ordered) - 1) // 2]
