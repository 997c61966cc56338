"""A plain diffusers loop: what a page of documentation shows and what lerobot and diffusion_policy run to sample.

The scheduler is made once, `set_timesteps` is called for every sample, and each step calls the network on the whole batch
and then `scheduler.step`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from reconverge.policy.diffusion_policy import DiffusionPolicy


def ddim(timesteps: int, clip: float, prediction: str) -> Any:
    """The DDIM scheduler with the squared-cosine schedule, clipping the predicted clean sample to [-clip, clip]."""
    return DDIMScheduler(timesteps, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, clip_sample=True, clip_sample_range=clip)


def scheduler_of(policy: DiffusionPolicy) -> Any:
    """The scheduler of the policy's own sampler."""
    if policy.config.sampler == "ddim":
        return ddim(policy.config.timesteps, 1.0, "epsilon")
    return DPMSolverMultistepScheduler(
        policy.config.timesteps, beta_schedule="squaredcos_cap_v2", algorithm_type="dpmsolver++", timestep_spacing="leading"
    )


@torch.no_grad()
def sample(scheduler: Any, model: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Denoise `noise` (B, ...) in `steps` steps; `model` maps (sample, timestep (B,)) to the prediction."""
    scheduler.set_timesteps(steps)
    denoised = noise
    for timestep in scheduler.timesteps:
        predicted = model(denoised, timestep.expand(len(noise)))
        denoised = scheduler.step(predicted, timestep, denoised).prev_sample
    return denoised


def sample_chunk(policy: DiffusionPolicy, scheduler: Any, observations: Tensor, task: Tensor, noise: Tensor) -> Tensor:
    """The plain counterpart of `DiffusionPolicy.sample_chunk`: the same network, given the noise (B, H, Da)."""
    with torch.no_grad():
        condition = policy.condition(observations, task)
    steps = policy.config.sampling_steps
    return sample(scheduler, lambda noisy, timestep: policy.denoiser(noisy, timestep, condition), noise, steps).clamp(-1.0, 1.0)
