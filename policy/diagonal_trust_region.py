"""The penalty of classical EWC: a diagonal Fisher around the optimum of every earlier task.

    penalty(theta) = (lambda / 2) * sum_i sum_p D_ip (theta_p - theta_ip*)^2

A sum of parabolas in one variable is a parabola again, so all earlier tasks together cost two vectors, however many they are:

    curvature   A = sum_i D_i
    centre      b = sum_i D_i theta_i* / A
    rest        sum_i sum_p D_ip (theta_ip* - b_p)^2, which no theta can lower

Worked example with P = 1: D = 1 around 0 and D = 3 around 2 give A = 4, b = 1.5, rest = 1 * 2.25 + 3 * 0.25 = 3.

L2, MAS and SI are published with all curvature around the last optimum: A the same, b = theta_t*, rest 0. In the example A = 4, b = 2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.saved_arrays import take


class DiagonalTrustRegion:
    """Diagonal quadratic penalties around the optima of earlier tasks, merged as they are added."""

    def __init__(self, strength: float, size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """`strength` is lambda (>= 0), under a mean-reduced loss; `size` is P."""
        self.strength, self.count, self.rest = strength, 0, 0.0
        self.curvature = torch.zeros(size, device=device, dtype=dtype)
        self.centre = torch.zeros(size, device=device, dtype=dtype)

    def __len__(self) -> int:
        return self.count

    def add(self, diagonal: Tensor, optimum: Tensor) -> None:
        """Protect the `optimum` (P,) with the curvature `diagonal` (P,), which must not be negative."""
        together = self.curvature + diagonal
        share = torch.where(together > 0, diagonal / together.clamp_min(torch.finfo(together.dtype).tiny), 0.0)
        away = optimum - self.centre
        self.rest += float((self.curvature.double() * share.double() * away.double().square()).sum())
        self.centre.add_(share * away)
        self.curvature = together
        self.count += 1

    def move(self, diagonal: Tensor, optimum: Tensor) -> None:
        """Protect the `optimum` (P,) in place of all earlier ones, with `diagonal` (P,) added to their curvature; a negative sum counts as 0."""
        self.curvature = (self.curvature + diagonal).clamp_min_(0)
        self.centre = optimum.clone()
        self.count += 1

    def penalty(self, theta: Tensor) -> Tensor:
        return 0.5 * self.strength * ((self.curvature * (theta - self.centre).square()).sum() + self.rest)

    def add_gradient(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """Add the gradient of `penalty` to `gradient` (P,) and return the penalty ()."""
        pull = self.curvature * (theta - self.centre)
        gradient.add_(pull, alpha=self.strength)
        return 0.5 * self.strength * (pull @ (theta - self.centre) + self.rest)

    @property
    def bytes(self) -> int:
        return 2 * self.curvature.numel() * self.curvature.element_size()

    def arrays(self) -> dict[str, np.ndarray]:
        scalars = np.array([self.count, self.rest])
        return {"curvature": self.curvature.cpu().numpy(), "centre": self.centre.cpu().numpy(), "count_and_rest": scalars}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Take what `arrays` gave. Raises DamagedFile, before any changes, where it does not fit these parameters."""
        place = "learner.safetensors"
        curvature, centre = (take(arrays, name, (len(self.centre),), place) for name in ("curvature", "centre"))
        count, self.rest = take(arrays, "count_and_rest", (2,), place).tolist()
        self.curvature, self.centre = curvature.to(self.curvature), centre.to(self.centre)
        self.count = int(count)
