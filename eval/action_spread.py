"""How far a policy's samples of one situation lie apart, and how far from what its expert did there.

    samples of one window     a_1 ... a_S     at temperature 1: what the policy has learned
    their spread              root mean square of a_s - mean(a)
    error of a sample         root mean square of a_s - a*, where a* is the chunk that the expert executed
    error of their mean       root mean square of mean(a) - a*
    error at temperature 0    root mean square of a_0 - a*, where a_0 is denoised from the centre of the noise

An expert who does one thing in one situation has no spread of his own: then error of a sample^2 = spread^2 + error of the mean^2, the
spread is the policy's own, and acting at temperature 0 (`policy.temperature`) leaves it out. Where experts differ, the spread is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reconverge.policy.config import SamplerName
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.windows import WindowBatch


@dataclass(frozen=True)
class ActionSpread:
    """All in the units of an action, whose range is [-1, 1]; over all steps and numbers of the chunks.

    Attributes:
        windows: how many situations.
        samples: of each.
    """

    windows: int
    samples: int
    spread: float
    sample_error: float
    mean_error: float
    centre_error: float


def action_spread(policy: DiffusionPolicy, windows: WindowBatch, samples: int, stream: torch.Generator) -> ActionSpread:
    """Of the policy as it acts, but for the temperature; `samples` >= 2 of each window. The noise is drawn from `stream`."""
    count = len(windows)
    noise = [torch.Generator().manual_seed(seed) for seed in torch.randint(2**31, (count * samples,), generator=stream).tolist()]
    observations, tasks = (each.repeat_interleave(samples, 0) for each in (windows.observations, windows.task))
    sampler: SamplerName = "ddim" if policy.config.sampler == "ddpm" else policy.config.sampler  # ddpm has no temperature 0
    sampled = policy.acting_with(temperature=1.0).sample_chunk(observations, tasks, noise).unflatten(0, (count, samples))
    centre = policy.acting_with(sampler=sampler, temperature=0.0).sample_chunk(windows.observations, windows.task, noise[:count])
    mean, done = sampled.mean(1), windows.actions
    return ActionSpread(
        windows=count,
        samples=samples,
        spread=_root_mean_square(sampled - mean[:, None]),
        sample_error=_root_mean_square(sampled - done[:, None]),
        mean_error=_root_mean_square(mean - done),
        centre_error=_root_mean_square(centre - done),
    )


def _root_mean_square(differences: Tensor) -> float:
    return float(differences.square().mean().sqrt())
