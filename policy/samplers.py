"""Samplers: how noise is turned into a sample, step by step, with a network that predicts the noise (or the velocity).

The schedules and the arithmetic are those of `diffusers`. Two samplers are written out, because acting is made of them
and a scheduler works its coefficients out anew in every step, from tensors of one number:

    ddim           x' = sqrt(abar') clip(x0) + sqrt(1 - abar') eps                        arXiv 2010.02502, equation 12
    dpm-solver++   x' = a x - b x0 - c (x0 - x0 of the step before), second order         arXiv 2211.01095, 2M, midpoint

with x0 and eps as the network's prediction implies them. Here the coefficients are plain numbers, made once by the same
operations in the same precision, and the arithmetic on x is in the same order: the samples are diffusers' own to the
last bit (tests/test_diffusion.py). `ddpm` goes through diffusers' scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from reconverge.policy.config import SamplerName

Target = Literal["noise", "velocity"]
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, ...), t (1,) of all rows) -> predicted target


class Sampler(Protocol):
    def __call__(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        """From standard normal `sample` (B, ...) to clean samples; row b may draw from streams[b]."""


def make_sampler(name: SamplerName, schedule: dict[str, Any], steps: int, clip: float, target: Target) -> Sampler:
    """`schedule` holds the arguments of diffusers' schedulers; `clip` bounds the predicted clean sample (not in dpm-solver++)."""
    match name:
        case "ddim":
            return DDIM(schedule, steps, clip, target)
        case "dpm-solver++":
            return DPMSolver(schedule, steps, target)
        case "ddpm":
            return DDPM(schedule, steps, clip)


class _Level(NamedTuple):
    """A noise level: x = signal x0 + noise eps at `timestep`."""

    timestep: int
    signal: float
    noise: float

    def predict(self, denoise: Denoise, sample: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """x0 and eps as the network sees them."""
        predicted = denoise(sample, torch.tensor([self.timestep], device=sample.device))
        if target == "noise":
            return (sample - self.noise * predicted) / self.signal, predicted
        return self.signal * sample - self.noise * predicted, self.signal * predicted + self.noise * sample


class DDIM:
    """Without added noise."""

    def __init__(self, schedule: dict[str, Any], steps: int, clip: float, target: Target) -> None:
        scheduler = DDIMScheduler(**schedule)
        scheduler.set_timesteps(steps)
        stride, self.clip, self.target = scheduler.config.num_train_timesteps // steps, clip, target
        self.levels: list[tuple[_Level, float, float]] = []
        for timestep in scheduler.timesteps.tolist():
            now = scheduler.alphas_cumprod[timestep]
            after = scheduler.alphas_cumprod[timestep - stride] if timestep >= stride else scheduler.final_alpha_cumprod
            level = _Level(timestep, float(now**0.5), float((1 - now) ** 0.5))
            self.levels.append((level, float(after**0.5), float((1 - after) ** 0.5)))

    def __call__(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        for level, next_signal, next_noise in self.levels:
            clean, noise = level.predict(denoise, sample, self.target)
            sample = next_signal * clean.clamp_(-self.clip, self.clip) + next_noise * noise
        return sample


class DPMSolver:
    """DPM-Solver++ of second order; its first and its last step are of first order, where c is 0."""

    def __init__(self, schedule: dict[str, Any], steps: int, target: Target) -> None:
        scheduler = DPMSolverMultistepScheduler(**schedule, algorithm_type="dpmsolver++", timestep_spacing="leading")
        scheduler.set_timesteps(steps)
        self.target = target
        # In diffusers' terms: sigma is noise / signal, lambda the log of its inverse, h and h0 are steps in lambda.
        signal = 1 / (scheduler.sigmas**2 + 1) ** 0.5
        noise = scheduler.sigmas * signal
        log_ratio = torch.log(signal) - torch.log(noise)
        self.levels: list[tuple[_Level, float, float, float, float]] = []
        for now, timestep in enumerate(scheduler.timesteps.tolist()):
            h = log_ratio[now + 1] - log_ratio[now]
            a, b = noise[now + 1] / noise[now], signal[now + 1] * (torch.exp(-h) - 1.0)
            first_order = now in (0, steps - 1)
            per_step = 0.0 if first_order else float(1.0 / ((log_ratio[now] - log_ratio[now - 1]) / h))
            level = _Level(timestep, float(signal[now]), float(noise[now]))
            self.levels.append((level, float(a), float(b), float(0.5 * b), per_step))

    def __call__(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        before = sample
        for level, a, b, half_b, per_step in self.levels:
            clean, _ = level.predict(denoise, sample, self.target)
            sample = a * sample - b * clean
            if per_step:
                sample -= half_b * (per_step * (clean - before))
            before = clean
        return sample


class DDPM:
    """Adds noise on the way."""

    def __init__(self, schedule: dict[str, Any], steps: int, clip: float) -> None:
        self.scheduler, self.steps = DDPMScheduler(**schedule, clip_sample=True, clip_sample_range=clip), steps

    def __call__(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        self.scheduler.set_timesteps(self.steps)
        for timestep in self.scheduler.timesteps:
            predicted = denoise(sample, timestep.to(sample.device)[None])
            sample = self.scheduler.step(predicted, timestep, sample, generator=list(streams)).prev_sample
        return sample
