"""The noise schedule, in plain arithmetic.

    abar(u) = cos((u + 0.008) / 1.008 * pi / 2)^2            squared cosine, arXiv 2102.09672; u = t / N
    beta_t  = min(1 - abar((t + 1) / N) / abar(t / N), 0.999)         alphabar_t = prod over s <= t of (1 - beta_s)

These are the numbers of `diffusers` to the last bit (tests/test_diffusion.py), made by the same operations in the same precision.
They are written out because acting needs nothing else of that package: a policy loads without it, and six seconds sooner.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.sampler_steps import sampler_timesteps

MOST_NOISE = 0.999
"""Upper end of beta."""


def alphas_bar(timesteps: int) -> Tensor:
    """(N,) float32, alphabar_t for t = 0..N-1."""
    level = [math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(timesteps + 1)]
    betas = torch.tensor([min(1 - level[t + 1] / level[t], MOST_NOISE) for t in range(timesteps)], dtype=torch.float32)
    return torch.cumprod(1.0 - betas, dim=0)


def dpm_sigmas(timesteps: int, steps: int) -> Tensor:
    """(steps + 1,) float32: noise / signal at the timesteps of dpm-solver++, and 0 at the end."""
    level = alphas_bar(timesteps)
    sigmas = (((1 - level) / level) ** 0.5).numpy()
    at_steps = np.interp(sampler_timesteps("dpm-solver++", timesteps, steps), np.arange(timesteps), sigmas)
    return torch.from_numpy(np.concatenate([at_steps, [0]]).astype(np.float32))
