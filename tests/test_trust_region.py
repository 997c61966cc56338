import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconverge.envs.errors import TrainingDiverged
from reconverge.policy.diagonal_trust_region import DiagonalTrustRegion
from reconverge.policy.fisher import Rank1Fisher, rank1_fisher
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


def test_the_projection_in_the_modules_first_lines() -> None:
    trust = region(2.0, 2)
    trust.add(fisher([3, 4], 0.5), torch.tensor([1.0, 1.0]))
    theta = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert trust.travelled(theta) == 2.25
    multiplier, travelled = trust.project(theta, radius=0.25)
    assert abs(multiplier - 0.16) < 1e-9 and abs(travelled - 0.25) < 1e-9
    assert torch.allclose(theta, torch.tensor([1.76, 0.68], dtype=torch.float64))
    assert trust.project(theta, radius=0.26).multiplier == 0.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(0.01, 0.9))
def test_the_projection_is_the_nearest_point_within_the_radius(seed: int, tasks: int, share: float) -> None:
    """It lies on the border, and the step to it is normal to the border there (Kuhn-Tucker), which for a convex set is all there is to it."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    trust = region(1.0, 6)
    for _ in range(tasks):
        trust.add(Rank1Fisher(draw(6), float(draw(1).abs()) + 0.1, 1, 1.0, 1.0, 0.0), draw(6))
    start = draw(6) * 3
    centre_free = start.clone()
    radius = share * trust.travelled(start)
    strength, travelled = trust.project(centre_free, radius)
    assert abs(travelled / radius - 1) < 1e-6 and abs(trust.travelled(centre_free) / radius - 1) < 1e-6
    normal = trust.gradient(centre_free)  # lambda = 1: the gradient of what was travelled
    assert torch.allclose(start - centre_free, strength * normal, atol=1e-8 * (1 + strength))


def test_one_gradient_shared_by_two_tasks_is_no_obstacle() -> None:
    """The Gram matrix is singular then."""
    trust = region(1.0, 2)
    for optimum in ([0.0, 0.0], [0.2, 0.0]):
        trust.add(fisher([1, 0], 1.0), torch.tensor(optimum))
    theta = torch.tensor([5.0, 7.0], dtype=torch.float64)
    trust.project(theta, radius=0.1)
    assert trust.travelled(theta) <= 0.1 * (1 + 1e-6) and float(theta[1]) == 7.0


def projected_before() -> TrustRegion:
    """A region of one task that has projected something already."""
    trust = region(1.0, 2)
    trust.add(fisher([1, 0], 2.0), torch.zeros(2))
    trust.project(torch.tensor([3.0, 3.0], dtype=torch.float64), radius=0.25)
    return trust


def test_what_was_travelled_is_in_squared_units_of_the_loss() -> None:
    """A loss ten times as large has mu ten times as large and the same c."""
    travelled = []
    for unit in (1, 10):
        trust, origin = region(1.0, 2), torch.zeros(2).double()
        trust.add(rank1_fisher(lambda point, draws, unit=unit: unit * (draws[0] @ point), origin, (torch.eye(2).double(),)), origin)
        travelled.append(trust.travelled(torch.ones(2).double()))
    assert travelled[1] == pytest.approx(100 * travelled[0])


def test_a_task_that_is_added_after_a_projection_counts_in_the_next() -> None:
    trust = projected_before()
    trust.add(fisher([0, 1], 2.0), torch.zeros(2))
    theta = torch.tensor([0.0, 3.0], dtype=torch.float64)
    trust.project(theta, radius=0.25)  # travelled = 2 / 2 * 3^2 = 9; on the border |theta| = 0.5
    assert torch.allclose(theta, torch.tensor([0.0, 0.5], dtype=torch.float64), atol=1e-9)


def test_arrays_that_are_loaded_after_a_projection_count_in_the_next() -> None:
    trust, other = projected_before(), region(1.0, 2)
    other.add(fisher([0, 2], 2.0), torch.zeros(2))
    trust.load_arrays(other.arrays())
    theta = torch.tensor([0.0, 3.0], dtype=torch.float64)
    trust.project(theta, radius=0.25)  # d = 2 * 3, on the border d^2 = 0.25, so theta = 0.25
    assert torch.allclose(theta, torch.tensor([0.0, 0.25], dtype=torch.float64), atol=1e-9)


def test_a_flat_direction_takes_a_large_multiplier() -> None:
    trust = region(1.0, 2)
    trust.add(fisher([0.01, 0], 1.0), torch.zeros(2))
    theta = torch.tensor([100.0, 7.0], dtype=torch.float64)
    found = trust.project(theta, radius=0.005)  # d = 1 -> 0.1: 1 + lambda * 1e-4 = 10
    assert found.multiplier == pytest.approx(9e4) and theta.tolist() == pytest.approx([10.0, 7.0])


def test_what_cancels_in_mu_times_the_optimum_is_added_up_in_float64() -> None:
    trust = TrustRegion(1.0, 3)
    trust.add(Rank1Fisher(torch.tensor([1e8, 1.0, -1e8]), 1.0, 1, 1.0, 1.0, 0.0), torch.ones(3))
    assert trust.distances(torch.zeros(3)).tolist() == [-1.0]  # in float32 1e8 + 1 - 1e8 = 0


def test_the_diagonal_example_in_the_modules_first_lines() -> None:
    trust = DiagonalTrustRegion(2.0, 1)
    trust.add(torch.tensor([1.0]), torch.tensor([0.0]))
    trust.add(torch.tensor([3.0]), torch.tensor([2.0]))
    assert (float(trust.curvature), float(trust.centre), trust.rest) == (4.0, 1.5, 3.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_merged_diagonal_penalties_are_the_sum_of_all(seed: int, tasks: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    trust, pieces = DiagonalTrustRegion(3.0, 4, dtype=torch.float64), []
    for _ in range(tasks):
        diagonal, optimum = torch.rand(4, generator=generator, dtype=torch.float64), torch.randn(4, generator=generator, dtype=torch.float64)
        trust.add(diagonal, optimum)
        pieces.append((diagonal, optimum))
    theta = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    whole = sum(1.5 * (diagonal * (theta - optimum).square()).sum() for diagonal, optimum in pieces)
    assert isinstance(whole, torch.Tensor)
    (expected,) = torch.autograd.grad(whole, theta)
    gradient = torch.zeros(4, dtype=torch.float64)
    assert torch.isclose(trust.add_gradient(theta.detach(), gradient), whole.detach())
    assert torch.isclose(trust.penalty(theta.detach()), whole.detach()) and torch.allclose(gradient, expected)


def test_a_diagonal_region_is_carried_through_arrays() -> None:
    trust = DiagonalTrustRegion(1.0, 3)
    trust.add(torch.rand(3), torch.rand(3))
    other = DiagonalTrustRegion(1.0, 3)
    other.load_arrays(trust.arrays())
    assert len(other) == 1 and torch.equal(other.centre, trust.centre) and other.rest == trust.rest


def test_parameters_that_are_not_finite_are_named_before_anything_moves() -> None:
    trust = region(1.0, 2)
    trust.add(fisher([1, 0], 1.0), torch.zeros(2))
    with pytest.raises(TrainingDiverged, match="not finite"):
        trust.project(torch.tensor([float("nan"), 1.0], dtype=torch.float64), radius=0.1)
