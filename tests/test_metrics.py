"""Metrics against the worked example of the module, and properties that any matrix must satisfy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reconverge.eval import metrics
from reconverge.eval.metrics import own_stages

WORKED = np.array([[0.0, 0.1, 0.0], [0.8, 0.2, np.nan], [0.9, 0.6, 0.3], [0.5, 0.7, 1.0]])
SCALARS = [
    metrics.average_success,
    metrics.forgetting_end_of_own_task,
    metrics.forgetting_peak,
    metrics.backward_transfer,
    metrics.forward_transfer,
]
matrices = st.integers(1, 5).flatmap(lambda tasks: arrays(float, (tasks + 1, tasks), elements=st.floats(0, 1) | st.just(float("nan"))))
full_matrices = st.integers(2, 5).flatmap(lambda tasks: arrays(float, (tasks + 1, tasks), elements=st.floats(0, 1)))


def test_worked_example() -> None:
    assert metrics.average_success(WORKED) == pytest.approx(2.2 / 3)
    assert metrics.average_success_over_stages(WORKED) == pytest.approx([0.8, 0.75, 2.2 / 3])
    assert metrics.forgetting_per_task(WORKED) == pytest.approx([0.3, -0.1, 0.0])
    assert metrics.forgetting_end_of_own_task(WORKED) == pytest.approx(0.2 / 3)
    assert metrics.forgetting_peak(WORKED) == pytest.approx(0.15)
    assert metrics.backward_transfer(WORKED) == pytest.approx(-0.1)
    assert metrics.forward_transfer(WORKED) == pytest.approx(0.2)


def test_a_run_that_is_still_going_counts_only_what_it_learned() -> None:
    partial = WORKED[:3]
    assert metrics.average_success(partial) == pytest.approx(0.75)
    assert metrics.forgetting_end_of_own_task(partial) == pytest.approx(-0.05)
    assert metrics.backward_transfer(partial) == pytest.approx(0.1)
    assert metrics.forward_transfer(partial) == pytest.approx(0.2)  # task 3 was measured just before its stage


def test_a_repeated_task_is_judged_from_its_first_stage() -> None:
    stages = ["hammer-v3", "push-v3", "hammer-v3"]
    own = own_stages(stages)
    assert own == {"hammer-v3": 1, "push-v3": 2}
    matrix = np.array([[0.0, 0.0], [0.8, 0.1], [0.2, 0.9], [0.9, 0.5]])
    assert metrics.average_success(matrix, [1, 2]) == pytest.approx(0.7)
    assert metrics.forgetting_end_of_own_task(matrix, [1, 2]) == pytest.approx((-0.1 + 0.4) / 2)
    assert metrics.forgetting_peak(matrix, [1, 2]) == pytest.approx((-0.1 + 0.4) / 2)
    assert metrics.backward_transfer(matrix, [1, 2]) == pytest.approx((0.1 - 0.4) / 2)


def test_nothing_measured_is_nan_and_not_zero() -> None:
    for metric in SCALARS:
        assert math.isnan(metric(np.full((4, 3), np.nan)))
    assert math.isnan(metrics.forgetting_peak(np.array([[0.0], [0.9]])))  # one task has no earlier one


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="axes"):
        metrics.average_success(np.zeros(3))
    with pytest.raises(ValueError, match="one entry per task"):
        metrics.average_success(WORKED, [1, 2])
    with pytest.raises(ValueError, match="1-based"):
        metrics.average_success(WORKED, [0, 1, 2])


@given(matrices)
def test_bounds_and_the_argument_stays_as_it_was(matrix: np.ndarray) -> None:
    before = matrix.copy()
    for metric in SCALARS:
        value = metric(matrix)
        assert math.isnan(value) or -1 <= value <= 1
    assert np.array_equal(before, matrix, equal_nan=True)


@given(full_matrices, st.randoms(use_true_random=False))
def test_the_order_of_columns_does_not_matter(matrix: np.ndarray, random: object) -> None:
    own = np.arange(1, matrix.shape[1] + 1)
    order = np.array(random.sample(range(len(own)), len(own)))  # type: ignore[attr-defined]
    for metric in SCALARS:
        assert metric(matrix[:, order], own[order]) == pytest.approx(metric(matrix, own), nan_ok=True)


@given(full_matrices)
def test_the_measures_agree_with_each_other(matrix: np.ndarray) -> None:
    tasks = matrix.shape[1]
    forgetting, backward = metrics.forgetting_end_of_own_task(matrix), metrics.backward_transfer(matrix)
    assert forgetting * tasks == pytest.approx(-backward * (tasks - 1))
    assert metrics.forgetting_peak(matrix) >= -backward - 1e-12
    assert metrics.average_success_over_stages(matrix)[-1] == pytest.approx(metrics.average_success(matrix))


def test_the_peak_is_sought_from_the_own_stage_on() -> None:
    matrix = np.array([[0.0, 0.0], [0.8, 0.9], [0.7, 0.5], [0.7, 0.4]])  # task 2 was better before it was learned
    assert metrics.forgetting_peak(matrix, [1, 2]) == pytest.approx(((0.8 - 0.7) + (0.5 - 0.4)) / 2)


def test_success_over_stages_counts_by_own_stage_not_by_column() -> None:
    matrix = np.array([[0.0, 0.0], [0.3, 0.8], [0.9, 0.6]])  # column 2 is learned first
    assert metrics.average_success_over_stages(matrix, [2, 1]) == pytest.approx([0.8, 0.75])


def test_forward_transfer_is_over_the_tasks_that_the_untrained_network_was_measured_on() -> None:
    assert math.isnan(metrics.forward_transfer(np.array([[np.nan, np.nan], [0.8, 0.3], [0.7, 0.9]])))
    one = np.array([[0.0, 0.1, np.nan], [0.8, 0.3, np.nan], [0.7, 0.9, 0.5]])
    assert metrics.forward_transfer(one) == pytest.approx(0.2)
