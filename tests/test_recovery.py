"""Counting recovery: the trace of the module, number by number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconverge.eval import recovery
from reconverge.eval.recovery import Curve, paper_grid

TRACE = Curve((0, 2, 6, 10, 25, 50, 100), (0.80, 0.70, 0.40, 0.20, 0.60, 0.72, 0.80))


def test_the_trace_of_the_module() -> None:
    assert [recovery.recovery_updates(TRACE, 0.8, threshold) for threshold in (99, 90, 80)] == [100, 50, 2]
    assert recovery.dip(TRACE, 0.8) == pytest.approx(0.6)
    assert recovery.dip_area(TRACE, 0.8) == pytest.approx(14.6)
    assert recovery.updates_after_dip(TRACE, 0.8, 80) == 50
    assert not recovery.no_dip(TRACE, 0.8, 80)


def test_never_is_none_and_update_zero_does_not_count() -> None:
    falling = Curve((0, 2, 6), (0.8, 0.1, 0.1))
    assert recovery.recovery_updates(falling, 0.8, 80) is None
    assert recovery.updates_after_dip(falling, 0.8, 80) is None
    assert recovery.recovery_updates(Curve((0,), (1.0,)), 1.0, 80) is None


def test_a_steady_task_reads_as_the_floor_of_the_grid_without_a_dip() -> None:
    steady = Curve((0, 2, 6), (0.8, 0.8, 0.9))
    assert recovery.recovery_updates(steady, 0.8, 99) == 2
    assert recovery.updates_after_dip(steady, 0.8, 99) == 2
    assert recovery.no_dip(steady, 0.8, 99)
    assert recovery.dip(steady, 0.8) == 0.0 and recovery.dip_area(steady, 0.8) == 0.0


def test_a_task_that_was_lost_before_the_switch_is_not_steady() -> None:
    assert not recovery.no_dip(Curve((0, 2, 10), (0.1, 0.8, 0.8)), 0.8, 90)


def test_a_rate_exactly_at_the_threshold_counts() -> None:
    assert recovery.recovery_updates(((0, 2), (0.0, 63 / 100)), 0.7, 90) == 2  # 0.9 * 0.7 is 0.63 and a bit in floating point


def test_the_grid_of_the_paper() -> None:
    grid = paper_grid(3000)
    assert grid[:7] == (2, 4, 6, 8, 10, 15, 20)
    assert grid[grid.index(100) - 1 : grid.index(100) + 2] == (95, 100, 150)
    assert grid[-4:] == (950, 1000, 2000, 3000)
    assert paper_grid(10) == (2, 4, 6, 8, 10) and paper_grid(1) == ()
    assert list(grid) == sorted(set(grid))


def test_a_task_that_is_lost_later_has_not_recovered_at_the_first_point() -> None:
    lost = Curve((0, 2, 10, 100), (1.0, 1.0, 0.9, 0.1))
    assert recovery.recovery_updates(lost, 1.0, 90) == 2  # the published definition
    assert recovery.updates_after_dip(lost, 1.0, 90) is None


def test_a_task_that_falls_back_to_the_same_bottom_has_not_recovered_before() -> None:
    """Few episodes a point make equal lows; the published count does not ask."""
    twice = Curve((0, 2, 10, 50, 100, 200), (1.0, 0.5, 1.0, 0.5, 0.9, 1.0))
    assert recovery.updates_after_dip(twice, 1.0, 99) == 200 and recovery.recovery_updates(twice, 1.0, 99) == 10
    assert recovery.updates_after_dip(Curve((0, 2, 10, 50), (1.0, 0.5, 1.0, 0.5)), 1.0, 99) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1))
def test_higher_thresholds_never_come_back_earlier(rates: list[float], reference: float) -> None:
    curve = Curve(range(0, 5 * len(rates), 5), rates)
    found = [recovery.recovery_updates(curve, reference, threshold) or float("inf") for threshold in (80, 90, 99)]
    assert found == sorted(found)
    assert 0 <= recovery.dip(curve, reference) <= 1
    assert recovery.dip_area(curve, reference) <= curve.updates[-1] * recovery.dip(curve, reference) + 1e-9


@pytest.mark.parametrize("curve", [((0, 2), (0.1,)), ((2, 6), (0.1, 0.1)), ((0, 6, 2), (0.1, 0.1, 0.1)), ((0, 2), (0.1, float("nan")))])
def test_curves_are_checked(curve: tuple[tuple[int, ...], tuple[float, ...]]) -> None:
    with pytest.raises(ValueError):
        recovery.dip(curve, 0.5)
