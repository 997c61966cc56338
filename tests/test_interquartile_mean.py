"""The interquartile mean: the module's example, scipy's trimmed mean, a bootstrap worked by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import trim_mean

from reconverge.envs.seeding import numpy_stream
from reconverge.eval.interquartile_mean import bootstrap_interval, interquartile_mean

EXAMPLE = [0.0, 0.5, 0.6, 0.7, 0.7, 0.8, 0.9, 1.0]


def test_the_example_of_the_modules_first_lines() -> None:
    assert interquartile_mean(np.array(EXAMPLE[::-1])) == pytest.approx(0.7) and np.mean(EXAMPLE) == pytest.approx(0.65)
    assert interquartile_mean(np.array(EXAMPLE).reshape(2, 4)) == pytest.approx(0.7)
    assert interquartile_mean(np.array([-9.0, *EXAMPLE[1:7], 9.0])) == pytest.approx(0.7)  # the ends do not count
    assert math.isnan(interquartile_mean(np.array([]))) and math.isnan(interquartile_mean(np.array([math.nan])))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (5, 7), (4, 10)])
def test_it_is_the_trimmed_mean_of_scipy(shape: tuple[int, int]) -> None:
    rates = numpy_stream("test", *shape).random(shape)
    assert interquartile_mean(rates) == pytest.approx(trim_mean(rates, 0.25, axis=None))


def test_the_bootstrap_is_that_of_every_table_that_can_be_drawn() -> None:
    """Five seeds of two tasks: 5^5 equally likely tables, each of whole runs."""
    rates = np.array([[0.2, 0.3], [0.4, 0.45], [0.5, 0.65], [0.6, 0.7], [0.9, 1.0]])
    tables = [trim_mean(np.concatenate(runs), 0.25) for runs in itertools.product(rates, repeat=5)]
    for confidence in (0.95, 0.5):
        found = bootstrap_interval(rates, confidence)
        expected = np.quantile(tables, [(1 - confidence) / 2, (1 + confidence) / 2])
        assert found[:4] == pytest.approx((interquartile_mean(rates), *expected, 10), abs=0.01)


def test_tasks_of_a_run_are_drawn_together() -> None:
    """A seed that does better on all tasks is one observation and not ten: the interval is that of a single task with ten times the episodes."""
    alone = np.array([[0.5], [0.6], [0.7], [0.8], [0.9], [1.0]])
    one, ten = bootstrap_interval(alone), bootstrap_interval(np.repeat(alone, 10, axis=1))
    assert ten.high - ten.low > 0.8 * (one.high - one.low)


@pytest.mark.parametrize("rates", [np.full((6, 3), 0.5), np.array([[0.1, 0.5, 0.9]] * 6), np.array([[0.1], [0.2], [0.3], [0.4]])])
def test_seeds_that_agree_and_fewer_than_five_have_no_interval(rates: np.ndarray) -> None:
    found = bootstrap_interval(rates)
    assert not math.isnan(found.mean) and math.isnan(found.low) and math.isnan(found.high)


def test_the_same_rates_give_the_same_interval_and_none_is_altered() -> None:
    rates = numpy_stream("test").random((5, 10))
    before = rates.copy()
    assert bootstrap_interval(rates) == bootstrap_interval(rates) and (rates == before).all()
    wide, narrow = bootstrap_interval(rates), bootstrap_interval(np.tile(rates, (8, 1)))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_what_was_not_measured_is_left_out_and_one_seed_has_no_bounds() -> None:
    nan = math.nan
    alone = bootstrap_interval(np.array([[0.2, nan, 0.6]]))
    assert alone.mean == pytest.approx(0.4) and alone.size == 2 and math.isnan(alone.low) and math.isnan(alone.high)
    lacking = bootstrap_interval(np.array([[0.2, nan], [0.4, 0.8], [0.3, 0.6], [0.5, 0.1], [0.7, nan], [nan, nan]]))
    assert lacking.size == 8 and lacking.low < lacking.mean < lacking.high
    assert lacking.mean == pytest.approx(trim_mean([0.2, 0.4, 0.3, 0.5, 0.7, 0.8, 0.6, 0.1], 0.25))
    assert math.isnan(bootstrap_interval(np.full((3, 2), nan)).mean) and bootstrap_interval(np.empty((0, 0))).size == 0


def test_other_shapes_and_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"axes \(seed, task\), got shape \(3,\)"):
        bootstrap_interval(np.zeros(3))
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        bootstrap_interval(np.zeros((3, 2)), confidence=95)
