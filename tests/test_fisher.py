"""The rank-1 Fisher against brute force, against a model where it is exact, and where mu vanishes."""

import pytest
import torch
from small_policy import random_windows, small_policy
from torch import Tensor

from reconverge.envs.errors import TrainingDiverged
from reconverge.policy.config import UnetConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import SPECTRUM_DRAWS, Draws, denoising_draws, denoising_losses, diagonal_fisher, rank1_fisher
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.random_streams import RandomStreams

UNET = UnetConfig(channels=(8, 16), kernel=3, groups=4, timestep_features=8, attention_heads=2)


def brute_force(losses, theta: Tensor, draws: Draws) -> tuple[Tensor, float]:  # type: ignore[no-untyped-def]
    """mu and c from one backward pass per draw."""
    gradients = []
    for row in range(len(draws[0])):
        point = theta.clone().requires_grad_()
        gradients.append(torch.autograd.grad(losses(point, tuple(part[row : row + 1] for part in draws))[0], point)[0])
    g = torch.stack(gradients)
    mu = g.mean(0)
    return mu, float((g @ mu).square().mean() / mu.square().sum() ** 2)


def spectral_ratio(losses, theta: Tensor, draws: Draws) -> float:  # type: ignore[no-untyped-def]
    few = tuple(part[:SPECTRUM_DRAWS] for part in draws)
    gradients = torch.autograd.functional.jacobian(lambda point: losses(point, few), theta)
    singular = torch.linalg.svdvals(gradients)
    return float((singular[1] / singular[0]) ** 2)


@pytest.mark.parametrize("denoiser", ["residual-mlp", "unet"])
def test_agrees_with_per_draw_gradients_in_float64(denoiser: str) -> None:
    policy: DiffusionPolicy = small_policy(denoiser=denoiser, unet=UNET).double()
    parameters = FlatParameters(policy.denoiser)
    windows = random_windows()
    windows.all().actions.data = windows.all().actions.double()
    windows.all().observations.data = windows.all().observations.double()
    clean, condition, timestep, noise = denoising_draws(policy, windows, 301, RandomStreams(0, 1))
    draws = clean, condition, timestep, noise.double()
    losses = denoising_losses(policy, parameters)

    mu, curvature = brute_force(losses, parameters.values, draws)
    fisher = rank1_fisher(losses, parameters.values, draws)
    assert float((fisher.mu - mu).norm() / mu.norm()) < 1e-10
    assert abs(fisher.curvature / curvature - 1) < 1e-10
    assert fisher.spectral_ratio == pytest.approx(spectral_ratio(losses, parameters.values, draws), rel=1e-6)


def test_the_diagonal_squares_per_draw_not_the_mean_gradient() -> None:
    """Two draws with gradients (1, 2) and (-1, 2): E[g^2] = (1, 4), while the squared mean would be (0, 4)."""
    draws = (torch.tensor([[1.0, 2.0], [-1.0, 2.0]]),)
    assert diagonal_fisher(lambda theta, part: part[0] @ theta, torch.zeros(2), draws).tolist() == [1.0, 4.0]


def test_the_diagonal_agrees_with_per_draw_gradients() -> None:
    policy = small_policy()
    parameters = FlatParameters(policy.denoiser)
    draws = denoising_draws(policy, random_windows(), 70, RandomStreams(0, 1))
    losses = denoising_losses(policy, parameters)
    gradients = torch.autograd.functional.jacobian(lambda theta: losses(theta, draws), parameters.values)
    assert torch.allclose(diagonal_fisher(losses, parameters.values, draws), gradients.square().mean(0), rtol=1e-4, atol=1e-8)


def test_exact_where_the_fisher_has_rank_one() -> None:
    """y = theta . x + noise with every x along u: F = E[g g^T] is rank one, so c mu mu^T must be F itself."""
    generator = torch.Generator().manual_seed(0)
    u = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    scale, target = (torch.randn(500, generator=generator, dtype=torch.float64) for _ in range(2))
    theta = torch.tensor([0.3, 0.1, -1.0], dtype=torch.float64)

    def losses(point: Tensor, draws: Draws) -> Tensor:
        s, y = draws
        return 0.5 * (s * (u @ point) - y).square()

    fisher = rank1_fisher(losses, theta, (scale, target))
    g = ((scale * (u @ theta) - target) * scale)[:, None] * u
    exact = g.T @ g / len(g)
    assert torch.allclose(fisher.curvature * torch.outer(fisher.mu, fisher.mu), exact, rtol=1e-10, atol=0)
    assert fisher.spectral_ratio < 1e-10


def test_a_constant_loss_gives_no_penalty_and_no_division_by_zero() -> None:
    fisher = rank1_fisher(lambda point, draws: 0 * point.sum() + draws[0] * 0, torch.ones(3), (torch.ones(10),))
    assert fisher.curvature == 0 and fisher.figures()["mu_norm"] == 0
    assert (fisher.collinearity, fisher.spectral_ratio) == (0, 0)


def test_draws_that_agree_are_collinear_and_opposite_halves_are_seen() -> None:
    def losses(point: Tensor, draws: Draws) -> Tensor:
        return draws[0] @ point

    same = rank1_fisher(losses, torch.zeros(2), (torch.tensor([[1.0, 2.0]]).repeat(8, 1),))
    assert same.collinearity == pytest.approx(1) and same.split_half_cosine == pytest.approx(1) and same.curvature == pytest.approx(1)
    opposed = rank1_fisher(losses, torch.zeros(2), (torch.tensor([[1.0, 0.0]] * 4 + [[-0.5, 0.0]] * 4),))
    assert opposed.split_half_cosine == pytest.approx(-1)


def dot(point: Tensor, draws: Draws) -> Tensor:
    """A loss whose gradients are the rows drawn."""
    return draws[0] @ point


def test_collinearity_and_spectral_ratio_by_hand() -> None:
    """Gradients (1, 0), (0, 1): ||E g||^2 = 1/2, E ||g||^2 = 1, both eigenvalues of E[g g^T] 1/2. (3, 0), (1, 0): 4 of 5, the second is 0."""
    apart = rank1_fisher(dot, torch.zeros(2), (torch.tensor([[1.0, 0.0], [0.0, 1.0]]),))
    assert apart.collinearity == pytest.approx(0.5) and apart.spectral_ratio == pytest.approx(1.0)
    along = rank1_fisher(dot, torch.zeros(2), (torch.tensor([[3.0, 0.0], [1.0, 0.0]]),))
    assert along.collinearity == pytest.approx(0.8) and along.spectral_ratio == pytest.approx(0.0)


def test_the_halves_are_compared_with_each_other() -> None:
    halves = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
    assert rank1_fisher(dot, torch.zeros(2), (halves,)).split_half_cosine == pytest.approx(0.0, abs=1e-7)


def test_a_small_gradient_has_a_curvature_too() -> None:
    """mu = 2e-3, E[(mu g)^2] / mu^4 = (1 + 9) / 2 / 4."""
    assert rank1_fisher(dot, torch.zeros(2), (torch.tensor([[1e-3, 0.0], [3e-3, 0.0]]),)).curvature == pytest.approx(1.25)


def test_projections_that_disagree_with_the_mean_gradient_are_refused() -> None:
    """A loss whose forward-mode derivative is twice its reverse-mode one."""

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
            pass

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
            return gradient / 2

        @staticmethod
        def jvp(ctx, tangent: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
            return tangent.clone()

    with pytest.raises(TrainingDiverged, match="of the Fisher differ by"):
        rank1_fisher(lambda point, draws: dot(Half.apply(point), draws), torch.zeros(2), (torch.tensor([[1.0, 2.0]]).repeat(4, 1),))


def product(point: Tensor, draws: Draws) -> Tensor:
    return draws[0] * point.square().sum() / 2


def test_more_draws_than_fit_at_once_are_all_in_the_curvature() -> None:
    """Gradients s (1, 1, 1) of mean (1, 1, 1): c = E[9 s^2] / 9."""
    scales = torch.linspace(0.5, 1.5, 2500)
    found = rank1_fisher(product, torch.ones(3), (scales,))
    assert found.curvature == pytest.approx(float(scales.double().square().mean()), rel=1e-5)


@pytest.mark.parametrize("broken", [[3], [0, 1999], [511, 512]])
def test_draws_that_are_not_finite_are_left_out_and_counted(broken: list[int]) -> None:
    values = torch.linspace(0.5, 1.5, 2000)
    sound = torch.tensor([value for place, value in enumerate(values.tolist()) if place not in broken])
    values[broken] = float("nan")
    values[broken[:1]] = float("inf")
    with pytest.warns(RuntimeWarning, match=f"{len(broken)} of 2000 Fisher draws are not finite and were left out"):
        fisher = rank1_fisher(product, torch.ones(3), (values,))
    expected = rank1_fisher(product, torch.ones(3), (sound,))
    assert fisher.draws == 2000 - len(broken)
    assert torch.equal(fisher.mu, expected.mu) and fisher.curvature == expected.curvature
    with pytest.warns(RuntimeWarning, match=f"{len(broken)} of 2000"):
        assert torch.equal(diagonal_fisher(product, torch.ones(3), (values,)), diagonal_fisher(product, torch.ones(3), (sound,)))


def test_more_than_a_thousandth_of_the_draws_not_finite_is_refused() -> None:
    values = torch.ones(2000)
    values[[3, 4, 1500]] = float("nan")
    for estimate in (rank1_fisher, diagonal_fisher):
        with pytest.raises(TrainingDiverged, match="3 or more of 2000 Fisher draws are not finite; 2 may be left out"):
            estimate(product, torch.ones(3), (values,))
    with pytest.raises(TrainingDiverged, match="too large to be squared and added up"):
        diagonal_fisher(product, torch.ones(3), (torch.full((4,), 1e30),))
