import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconverge.policy.config import OptimizerConfig
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.optimizer import SecondMoment, StageOptimizer, one_cycle


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


PLAIN = OptimizerConfig(learning_rate=0.1, weight_decay=0.0, schedule="constant")


def test_a_carried_second_moment_by_hand() -> None:
    """AdamW's betas are 0.9 and 0.999. A fresh one steps by the learning rate whatever the gradient; with an average square of 4.0, carried
    over from many steps, a gradient of 1.0 makes a step of 0.1 * (0.1 * 1.0) / sqrt(0.999 * 4.0 + 0.001 * 1.0) = 0.0050019."""
    steps = []
    for carried in (None, SecondMoment(torch.tensor([4.0]), 100_000)):
        parameters = FlatParameters(torch.nn.Linear(1, 1, bias=False))
        before = parameters.values.clone()
        optimizer = StageOptimizer(parameters, PLAIN, 5, carried)
        parameters.gradient.fill_(1.0)
        optimizer.step()
        steps.append(float(before - parameters.values))
    assert steps == pytest.approx([0.1, 0.0050019], rel=1e-4)


def test_a_weight_that_never_had_a_gradient_is_given_the_mean_of_all() -> None:
    """Averages 4.0 and 0.0: with its own, the second weight's first step would be (0.1 * 1.0) / sqrt(0.001 * 1.0) = 3.2 learning rates."""
    parameters = FlatParameters(torch.nn.Linear(2, 1, bias=False))
    before = parameters.values.clone()
    optimizer = StageOptimizer(parameters, PLAIN, 5, SecondMoment(torch.tensor([4.0, 0.0]), 100_000))
    parameters.gradient.fill_(1.0)
    optimizer.step()
    expected = [0.1 * 0.1 / math.sqrt(0.999 * average + 0.001) for average in (4.0, 2.0)]
    assert (before - parameters.values).tolist() == pytest.approx(expected, rel=1e-4)


def test_what_is_carried_counts_all_steps_and_stays_what_it_was() -> None:
    parameters = FlatParameters(torch.nn.Linear(1, 1, bias=False))
    carried = SecondMoment(torch.tensor([4.0]), 7)
    optimizer = StageOptimizer(parameters, PLAIN, 5, carried)
    parameters.gradient.fill_(1.0)
    optimizer.step()
    optimizer.step()
    assert optimizer.second_moment().steps == 9 and carried.average == 4.0 and optimizer.done == 2
    assert float(optimizer.second_moment().average) == pytest.approx(4.0 - 0.003 - 0.002997)
