"""The trust region around the optima of earlier tasks (arXiv 2602.02417).

Penalty form (equation 8): what strays is pulled back.

    penalty(theta) = (lambda / 2) * sum_i c_i (mu_i . (theta - theta_i*))^2

The optimum theta_i* enters only through the scalar b_i = mu_i . theta_i*, so an earlier stage costs one
vector and two scalars, and the gradient for all of them is two matrix-vector products:

    gradient = M^T (lambda * c * (M theta - b))            M (K, P), c (K,), b (K,)

Worked example with P = 2, K = 1, lambda = 2: mu = (3, 4), c = 0.5, theta* = (1, 1), hence b = 7.
At theta = (2, 1): M theta - b = 10 - 7 = 3, penalty = 1 * 0.5 * 9 = 4.5, gradient = 2 * 0.5 * 3 * (3, 4) = (9, 12).

Constraint form (equation 6): what strays is put back on the border.

    travelled(theta) = (1 / 2) * sum_i c_i (mu_i . (theta - theta_i*))^2  <=  delta

The nearest point within it is theta - M^T (lambda * c * d), where the distances d there solve (1 + lambda G c) d = M theta - b with the
K x K matrix G = M M^T, and lambda >= 0 is the one number that puts it on the border: an exact projection that reads mu as often as a
penalty's gradient does. This lambda is the multiplier of one step's projection, not that of equation 8.

In the example travelled = 0.5 * 0.5 * 9 = 2.25; with delta = 0.25 the border is at d = 1, so 3 = (1 + lambda * 25 * 0.5) * 1 gives
lambda = 0.16 and theta - 0.16 * 0.5 * 1 * (3, 4) = (1.76, 0.68).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from reconverge.envs.errors import TrainingDiverged
from reconverge.policy.fisher import Rank1Fisher
from reconverge.policy.saved_arrays import take


class Projection(NamedTuple):
    """What `project` did: the Lagrange multiplier of the step, 0 where theta was within the radius, and how far theta has travelled now."""

    multiplier: float
    travelled: float


class TrustRegion:
    """Rank-1 quadratic penalties around the optima of earlier tasks, in the order in which they were added."""

    def __init__(self, strength: float, size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """`strength` is lambda (>= 0), under a mean-reduced loss; `size` is P."""
        self.strength = strength
        self.mu = torch.zeros(0, size, device=device, dtype=dtype)
        self.curvature = torch.zeros(0, device=device, dtype=dtype)
        self.centre = torch.zeros(0, device=device, dtype=dtype)
        self._decomposed: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.curvature)

    def add(self, fisher: Rank1Fisher, optimum: Tensor) -> None:
        """Protect the `optimum` (P,) at which `fisher` was estimated."""
        self.mu = torch.cat([self.mu, fisher.mu[None].to(self.mu)])
        self.curvature = torch.cat([self.curvature, self.curvature.new_tensor([fisher.curvature])])
        centre = (fisher.mu.double() @ optimum.double()).to(self.centre)
        self.centre = torch.cat([self.centre, centre[None]])
        self._decomposed = None

    def distances(self, theta: Tensor) -> Tensor:
        """(K,) mu_i . (theta - theta_i*): how far theta has moved along each protected direction."""
        return self.mu @ theta - self.centre

    def penalty(self, theta: Tensor) -> Tensor:
        return self._penalty(self.distances(theta))

    def gradient(self, theta: Tensor) -> Tensor:
        """(P,) gradient of `penalty`."""
        gradient = torch.zeros_like(theta)
        self.add_gradient(theta, gradient)
        return gradient

    def add_gradient(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """Add the gradient of `penalty` to `gradient` (P,) and return the penalty ().

        Mu is read twice and nothing of size P is made: in an update that is what the trust region costs.
        """
        distances = self.distances(theta)
        gradient.addmv_(self.mu.T, self.strength * self.curvature * distances)
        return self._penalty(distances)

    def travelled(self, theta: Tensor) -> float:
        """The left side of equation 6, in *squared* units of the loss: c has none, mu . (theta - theta*) has those of the loss."""
        return float(self.travelled_from_each(theta).sum())

    def travelled_from_each(self, theta: Tensor) -> Tensor:
        """(K,) its terms, one for every optimum, float64."""
        return 0.5 * (self.curvature * self.distances(theta).square()).double()

    def project(self, theta: Tensor, radius: float) -> Projection:
        """Move `theta` (P,) in place to the nearest point that has travelled at most `radius` (> 0, in squared units of the loss).

        Raises TrainingDiverged where theta is not finite.
        """
        root = self.curvature.double().sqrt()
        stretch, axes = self._axes(root)
        along = axes.T @ (root * self.distances(theta).double())
        travelled = float(0.5 * along.square().sum())
        if not math.isfinite(travelled):
            raise TrainingDiverged("the parameters are not finite")
        if travelled <= radius:
            return Projection(0.0, travelled)
        multiplier = _on_border(0.5 * along.square(), stretch, radius)
        along /= 1 + multiplier * stretch
        theta.addmv_(self.mu.T, (-multiplier * root * (axes @ along)).to(theta))
        return Projection(multiplier, float(0.5 * along.square().sum()))

    def _axes(self, root: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues (K,) >= 0 and eigenvectors (K, K) of sqrt(c) G sqrt(c); the same until a task is added."""
        if self._decomposed is None:
            stretch, axes = torch.linalg.eigh(root[:, None] * (self.mu @ self.mu.T).double() * root)
            self._decomposed = stretch.clamp_min(0), axes
        return self._decomposed

    def _penalty(self, distances: Tensor) -> Tensor:
        return 0.5 * self.strength * (self.curvature * distances.square()).sum()

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.mu, self.curvature, self.centre))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"mu": self.mu.cpu().numpy(), "curvature": self.curvature.cpu().numpy(), "centre": self.centre.cpu().numpy()}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what `arrays` gave. Raises DamagedFile, before any changes, where it does not fit these parameters."""
        mu = take(arrays, "mu", (None, self.mu.shape[1]), "learner.safetensors")
        curvature, centre = (take(arrays, name, (len(mu),), "learner.safetensors") for name in ("curvature", "centre"))
        self.mu, self.curvature, self.centre = mu.to(self.mu), curvature.to(self.curvature), centre.to(self.centre)
        self._decomposed = None


def _on_border(along: Tensor, stretch: Tensor, radius: float) -> float:
    """lambda with sum_i along_i / (1 + lambda stretch_i)^2 = radius: (K,) shares of what was travelled, (K,) eigenvalues >= 0."""

    def excess(strength: float) -> float:
        return float((along / (1 + strength * stretch).square()).sum()) - radius

    high = 1.0
    while excess(high) > 0:
        high *= 10
        if high > 1e30:
            raise TrainingDiverged(f"no lambda brings what was travelled, {float(along.sum()):.3e}, within the radius {radius:.3e}")
    return float(brentq(excess, 0.0, high, rtol=1e-12))
