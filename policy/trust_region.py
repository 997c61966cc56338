"""The trust region around the optima of earlier tasks (arXiv 2602.02417, equation 8, penalty form).

    penalty(theta) = (lambda / 2) * sum_i c_i (mu_i . (theta - theta_i*))^2

The optimum theta_i* enters only through the scalar b_i = mu_i . theta_i*, so an earlier task costs one
vector and two scalars, and the gradient for all of them is two matrix-vector products:

    gradient = M^T (lambda * c * (M theta - b))            M (K, P), c (K,), b (K,)

Worked example with P = 2, K = 1, lambda = 2: mu = (3, 4), c = 0.5, theta* = (1, 1), hence b = 7.
At theta = (2, 1): M theta - b = 10 - 7 = 3, penalty = 1 * 0.5 * 9 = 4.5, gradient = 2 * 0.5 * 3 * (3, 4) = (9, 12).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.fisher import Rank1Fisher


class TrustRegion:
    """Rank-1 quadratic penalties around the optima of earlier tasks, in the order in which they were added."""

    def __init__(self, strength: float, size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """`strength` is lambda (>= 0), under a mean-reduced loss; `size` is P."""
        self.strength = strength
        self.mu = torch.zeros(0, size, device=device, dtype=dtype)
        self.curvature = torch.zeros(0, device=device, dtype=dtype)
        self.centre = torch.zeros(0, device=device, dtype=dtype)

    def __len__(self) -> int:
        return len(self.curvature)

    def add(self, fisher: Rank1Fisher, optimum: Tensor) -> None:
        """Protect the `optimum` (P,) at which `fisher` was estimated."""
        self.mu = torch.cat([self.mu, fisher.mu[None].to(self.mu)])
        self.curvature = torch.cat([self.curvature, self.curvature.new_tensor([fisher.curvature])])
        centre = (fisher.mu.double() @ optimum.double()).to(self.centre)
        self.centre = torch.cat([self.centre, centre[None]])

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

    def _penalty(self, distances: Tensor) -> Tensor:
        return 0.5 * self.strength * (self.curvature * distances.square()).sum()

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.mu, self.curvature, self.centre))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"mu": self.mu.cpu().numpy(), "curvature": self.curvature.cpu().numpy(), "centre": self.centre.cpu().numpy()}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        self.mu = torch.from_numpy(arrays["mu"]).to(self.mu)
        self.curvature = torch.from_numpy(arrays["curvature"]).to(self.curvature)
        self.centre = torch.from_numpy(arrays["centre"]).to(self.centre)
