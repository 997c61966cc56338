"""The rank-1 Fisher of a diffusion model (arXiv 2509.23593, section 3.3).

    mu = E[g]                            g: gradient of one draw's denoising loss at theta*
    c  = E[(mu . g)^2] / ||mu||^4        F ~ c mu mu^T

The draws' gradients are never held together. mu is the gradient of a mean loss (one backward pass), and the
projections mu . g of all draws are one forward-mode derivative of the vector of losses along mu.
With the same draws in both passes mean(mu . g) = ||mu||^2 to round-off, which is checked. The inner products of a few
draws' gradients, from which the spectrum comes, are had the same way: one gradient at a time, and the derivative of all
losses along it. So the memory is that of one batch and a few vectors of size P.

At an optimum mu is nearly zero plus sampling noise; the health figures say which of the two it is. A
split-half cosine near zero means that the penalty will protect a random direction.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.functional import cosine_similarity

from reconverge.envs.errors import TrainingDiverged
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.matrix_products import large_products
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowBatch, WindowTable

Draws = tuple[Tensor, ...]  # tensors whose first axis counts draws
DrawLosses = Callable[[Tensor, Draws], Tensor]  # (theta (P,), draws) -> losses (n,)

CHUNK = 1024  # draws per pass; bounds the memory, not the result
GRADIENT_NUMBERS = 2**26  # of per-draw gradients that are held together; bounds the memory, not the result
SPECTRUM_DRAWS = 16  # draws whose gradients are compared with each other
MOST_BROKEN = 0.001  # share of draws without a finite gradient that may be left out


@dataclass(frozen=True)
class Rank1Fisher:
    """F ~ curvature * mu mu^T around one task's optimum, and figures that say how far to trust it.

    Attributes:
        mu: (P,) mean gradient.
        curvature: c, without a unit: a loss ten times as large has the same; 0 when mu is zero, so that the penalty is off.
        draws: number of draws that it rests on.
        split_half_cosine: cosine between mu of the first and of the second half of the draws, in [-1, 1].
        collinearity: ||E g||^2 / E ||g||^2 over a few draws, in [0, 1]; 1 means all gradients agree.
        spectral_ratio: second over first eigenvalue of E[g g^T] over the same draws, in [0, 1]; 0 means rank one.
    """

    mu: Tensor
    curvature: float
    draws: int
    split_half_cosine: float
    collinearity: float
    spectral_ratio: float

    def figures(self) -> dict[str, float]:
        """All but mu, of which the norm."""
        return {
            "draws": self.draws, "mu_norm": float(self.mu.norm()), "curvature": self.curvature, "split_half_cosine": self.split_half_cosine,
            "collinearity": self.collinearity, "spectral_ratio": self.spectral_ratio,
        }  # fmt: skip


@large_products()
def rank1_fisher(losses: DrawLosses, theta: Tensor, draws: Draws) -> Rank1Fisher:
    """Estimate the rank-1 Fisher at `theta` (P,) from the given draws; those without a finite gradient are left out, see `finite_draws`.

    Raises:
        TrainingDiverged: too many draws are not finite, or mean(mu . g) disagrees with ||mu||^2.
    """
    count = len(draws[0])
    halves = [mean_gradient(losses, theta, half) for half in _split(draws, (count + 1) // 2)]
    sizes = [(count + 1) // 2, count // 2]
    mu = sum(half * (size / count) for half, size in zip(halves, sizes, strict=True))
    assert isinstance(mu, Tensor)
    if not bool(mu.isfinite().all()):
        return rank1_fisher(losses, theta, finite_draws(losses, theta, draws))
    squared_norm = float(mu.double().square().sum())
    projections = torch.cat([_along(losses, theta, part, mu) for part in _split(draws, CHUNK)])
    _check(projections, squared_norm)
    collinearity, spectral_ratio = _gradient_spectrum(losses, theta, draws)
    return Rank1Fisher(
        mu=mu,
        curvature=float(projections.double().square().mean()) / squared_norm**2 if squared_norm > 0 else 0.0,
        draws=count,
        split_half_cosine=float(cosine_similarity(halves[0], halves[1], dim=0)),
        collinearity=collinearity,
        spectral_ratio=spectral_ratio,
    )


def diagonal_fisher(losses: DrawLosses, theta: Tensor, draws: Draws) -> Tensor:
    """(P,) E[g^2] over the draws: the diagonal of E[g g^T], the Fisher of classical EWC (Kirkpatrick et al. 2017).

    The square is taken per draw, not of a mini-batch's mean gradient, which is a smaller and different quantity. Draws without a
    finite gradient are left out, see `finite_draws`.
    """
    return mean_over_gradients(Tensor.square_, losses, theta, draws)


def mean_over_gradients(of: Callable[[Tensor], Tensor], losses: DrawLosses, theta: Tensor, draws: Draws) -> Tensor:
    """(P,) mean of `of` every draw's gradient, (n, P) -> (n, P), which may change its argument. Draws without a finite one are left out."""
    total = torch.zeros_like(theta)
    for part in _split(draws, max(1, GRADIENT_NUMBERS // len(theta))):
        total += of(draw_gradients(losses, theta, part)).sum(0)
    if not bool(total.isfinite().all()):
        return mean_over_gradients(of, losses, theta, finite_draws(losses, theta, draws))
    return total / len(draws[0])


def draw_gradients(losses: DrawLosses, theta: Tensor, draws: Draws) -> Tensor:
    """(n, P) gradient of every draw's loss at `theta` (P,), all together."""
    gradients: Tensor = vmap(grad(lambda point, one: losses(point, tuple(part[None] for part in one)).sum()), in_dims=(None, 0))(theta, draws)
    return gradients


def finite_draws(losses: DrawLosses, theta: Tensor, draws: Draws) -> Draws:
    """The draws without those whose gradient is not finite, which are found by halving and counted in a warning.

    Raises:
        TrainingDiverged: they are more than `MOST_BROKEN` of all, or every gradient is finite and it is their sum or squares that are not.
    """
    count = len(draws[0])
    most = int(MOST_BROKEN * count)
    broken = list(islice(_without_finite_gradient(losses, theta, draws), most + 1))
    if not broken:
        raise TrainingDiverged(f"the gradients of {count} Fisher draws are too large to be squared and added up")
    if len(broken) > most:
        raise TrainingDiverged(f"{len(broken)} or more of {count} Fisher draws are not finite; {most} may be left out")
    warnings.warn(f"{len(broken)} of {count} Fisher draws are not finite and were left out", RuntimeWarning, stacklevel=3)
    kept = torch.ones(count, dtype=torch.bool, device=theta.device)
    kept[broken] = False
    return tuple(part[kept.to(part.device)] for part in draws)


def _without_finite_gradient(losses: DrawLosses, theta: Tensor, draws: Draws, first: int = 0) -> Iterator[int]:
    """Places of the draws whose gradient is not finite, counted from `first`: a part whose mean is finite holds none."""
    if bool(mean_gradient(losses, theta, draws).isfinite().all()):
        return
    count = len(draws[0])
    if count == 1:
        yield first
        return
    for number, half in enumerate(_split(draws, (count + 1) // 2)):
        yield from _without_finite_gradient(losses, theta, half, first + number * ((count + 1) // 2))


def denoising_losses(policy: DiffusionPolicy, parameters: FlatParameters) -> DrawLosses:
    """The policy's loss per draw as a function of theta; draws are (clean actions, condition, timestep, noise)."""

    predict = predicted_noise(policy, parameters)
    return lambda theta, draws: (predict(theta, draws) - draws[3]).square().flatten(1).mean(1)


def predicted_noise(policy: DiffusionPolicy, parameters: FlatParameters) -> Callable[[Tensor, Draws], Tensor]:
    """What the network predicts of those draws, (n, H, Da), as a function of theta (P,) and the draws."""

    def predict(theta: Tensor, draws: Draws) -> Tensor:
        clean, condition, timestep, noise = draws
        noisy = policy.diffusion.add_noise(clean, noise, timestep)
        predicted: Tensor = functional_call(policy.denoiser, parameters.unflatten(theta), (noisy, timestep, condition))
        return predicted

    return predict


def denoising_draws(policy: DiffusionPolicy, windows: WindowTable, count: int, streams: RandomStreams, purpose: str = "fisher") -> Draws:
    """`count` draws of (clean actions, condition, timestep, noise) from a table of windows; other draws for another `purpose`."""
    batch: WindowBatch = windows.draw(count, streams.generator(f"{purpose} windows"))
    timestep, noise = policy.diffusion.draw(tuple(batch.actions.shape), streams.generator(f"{purpose} noise"))
    condition = policy.condition(batch.observations, batch.task)
    return batch.actions, condition, timestep.to(condition.device), noise.to(condition.device)


def mean_gradient(losses: DrawLosses, theta: Tensor, draws: Draws) -> Tensor:
    """(P,) gradient of the mean loss over the draws."""
    total = torch.zeros_like(theta)
    count = len(draws[0])
    for part in _split(draws, CHUNK):
        point = theta.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(point, part).sum() / max(count, 1), point)
        total += gradient
    return total


def _along(losses: DrawLosses, theta: Tensor, draws: Draws, direction: Tensor) -> Tensor:
    """(n,) derivative of every draw's loss along `direction` (P,): the inner products of their gradients with it."""
    return jvp(lambda point: losses(point, draws), (theta,), (direction,))[1]


def _gradient_spectrum(losses: DrawLosses, theta: Tensor, draws: Draws) -> tuple[float, float]:
    count = min(len(draws[0]), SPECTRUM_DRAWS)
    few = tuple(part[:count] for part in draws)
    gram = torch.stack([_along(losses, theta, few, mean_gradient(losses, theta, one)) for one in _split(few, 1)]).double() / count
    eigenvalues = torch.linalg.eigvalsh(gram).clamp_min(0).flip(0)
    mean_square = float(gram.diagonal().sum())
    if mean_square == 0:
        return 0.0, 0.0
    ratio = float(eigenvalues[1] / eigenvalues[0]) if count > 1 else 0.0
    return float(gram.sum()) / count / mean_square, ratio


def _split(draws: Draws, size: int) -> list[Draws]:
    return list(zip(*(part.split(size) for part in draws), strict=True))


def _check(projections: Tensor, squared_norm: float) -> None:
    if not bool(projections.isfinite().all()):
        raise TrainingDiverged(f"{int((~projections.isfinite()).sum())} of {len(projections)} Fisher draws are not finite")
    scale = float(projections.double().square().mean().sqrt())
    difference = abs(float(projections.double().mean()) - squared_norm)
    if difference > 1e-3 * max(squared_norm, scale):
        raise TrainingDiverged(f"mean(mu . g) and ||mu||^2 = {squared_norm:.3e} of the Fisher differ by {difference:.3e}")
