import torch
from hypothesis import given
from hypothesis import strategies as st

from reconverge.policy.fisher import Rank1Fisher
from reconverge.policy.trust_region import TrustRegion


def fisher(mu: list[float], curvature: float) -> Rank1Fisher:
    return Rank1Fisher(torch.tensor(mu, dtype=torch.float64), curvature, 1, 1.0, 1.0, 0.0)


def region(strength: float, size: int) -> TrustRegion:
    return TrustRegion(strength, size, dtype=torch.float64)


def test_the_example_in_the_modules_first_lines() -> None:
    trust = region(2.0, 2)
    trust.add(fisher([3, 4], 0.5), torch.tensor([1.0, 1.0]))
    theta = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert trust.distances(theta).tolist() == [3]
    assert trust.penalty(theta) == 4.5
    assert trust.gradient(theta).tolist() == [9, 12]


numbers = st.floats(-3, 3, allow_subnormal=False)
vectors = st.lists(numbers, min_size=4, max_size=4)


@given(st.lists(st.tuples(vectors, st.floats(0, 10), vectors), max_size=4), vectors, st.floats(0, 100))
def test_penalty_is_the_papers_sum_and_gradient_its_derivative(
    optima: list[tuple[list[float], float, list[float]]], at: list[float], strength: float
) -> None:
    trust = region(strength, 4)
    for mu, curvature, optimum in optima:
        trust.add(fisher(mu, curvature), torch.tensor(optimum, dtype=torch.float64))
    theta = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for mu, curvature, optimum in optima:
        away = theta - torch.tensor(optimum, dtype=torch.float64)
        matrix = curvature * torch.outer(*[torch.tensor(mu, dtype=torch.float64)] * 2)
        total = total + 0.5 * strength * away @ matrix @ away
    (expected,) = torch.autograd.grad(total, theta, allow_unused=True) if optima else (torch.zeros(4),)
    assert torch.allclose(trust.penalty(theta.detach()), total.detach(), rtol=1e-9, atol=1e-9)
    assert torch.allclose(trust.gradient(theta.detach()), expected.double(), rtol=1e-9, atol=1e-9)


def test_arrays_carry_it_through_a_checkpoint() -> None:
    trust, loaded = region(1.0, 2), region(1.0, 2)
    trust.add(fisher([1, 2], 3.0), torch.tensor([1.0, 1.0]))
    loaded.load_arrays(trust.arrays())
    theta = torch.tensor([0.5, 0.0], dtype=torch.float64)
    assert torch.equal(loaded.gradient(theta), trust.gradient(theta)) and len(loaded) == 1
    assert loaded.bytes == 8 * (2 + 1 + 1)
