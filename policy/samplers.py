"""Samplers: how noise is turned into a sample, step by step, with a network that predicts the noise (or the velocity).

The schedules and the arithmetic are those of `diffusers`. Two samplers are written out, because acting is made of them
and a scheduler works its coefficients out anew in every step, from tensors of one number:

    ddim           x' = sqrt(abar') clip(x0) + sqrt(1 - abar') eps                        arXiv 2010.02502, equation 12
    dpm-solver++   x' = a x - b x0 - c (x0 - x0 of the step before), second order         arXiv 2211.01095, 2M, midpoint

with x0 and eps as the network's prediction implies them. Here the coefficients are plain numbers, made once by the same
operations in the same precision, and the arithmetic on x is in the same order: the samples are diffusers' own to the
last bit (tests/test_diffusion.py). `ddpm` goes through diffusers' scheduler, which is imported for it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from reconverge.policy.config import SamplerName
from reconverge.policy.noise_schedule import alphas_bar, dpm_sigmas
from reconverge.policy.sampler_steps import sampler_timesteps

Target = Literal["noise", "velocity"]
_PREDICTION_TYPE = {"noise": "epsilon", "velocity": "v_prediction"}
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, ...), t (1,) of all rows) -> predicted target


class Sampler(Protocol):
    def __call__(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        """From standard normal `sample` (B, ...) to clean samples; row b may draw from streams[b]."""


def make_sampler(name: SamplerName, timesteps: int, steps: int, clip: float, target: Target) -> Sampler:
    """A sampler of `steps` steps over a schedule of `timesteps`; `clip` bounds the predicted clean sample (not in dpm-solver++)."""
    match name:
        case "ddim":
            return DDIM(timesteps, steps, clip, target)
        case "dpm-solver++":
            return DPMSolver(timesteps, steps, target)
        case "ddpm":
            return DDPM(timesteps, steps, clip, target)


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

    def __init__(self, timesteps: int, steps: int, clip: float, target: Target) -> None:
        self.clip, self.target = clip, target
        schedule, clean, stride = alphas_bar(timesteps), torch.tensor(1.0), timesteps // steps
        self.levels: list[tuple[_Level, float, float]] = []
        for timestep in sampler_timesteps("ddim", timesteps, steps):
            now = schedule[timestep]
            after = schedule[timestep - stride] if timestep >= stride else clean
            level = _Level(timestep, float(now**0.5), float((1 - now) ** 0.5))
            self.levels.append((level, float(after**0.5), float((1 - after) ** 0.5)))

    def __call__(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        for level, next_signal, next_noise in self.levels:
            clean, noise = level.predict(denoise, sample, self.target)
            sample = next_signal * clean.clamp_(-self.clip, self.clip) + next_noise * noise
        return sample


class DPMSolver:
    """DPM-Solver++ of second order; its first and its last step are of first order, where c is 0."""

    def __init__(self, timesteps: int, steps: int, target: Target) -> None:
        self.target = target
        # In diffusers' terms: sigma is noise / signal, lambda the log of its inverse, h and h0 are steps in lambda.
        sigmas = dpm_sigmas(timesteps, steps)
        signal = 1 / (sigmas**2 + 1) ** 0.5
        noise = sigmas * signal
        log_ratio = torch.log(signal) - torch.log(noise)
        self.levels: list[tuple[_Level, float, float, float, float]] = []
        for now, timestep in enumerate(sampler_timesteps("dpm-solver++", timesteps, steps)):
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

    def __init__(self, timesteps: int, steps: int, clip: float, target: Target) -> None:
        from diffusers import DDPMScheduler

        schedule = {"num_train_timesteps": timesteps, "beta_schedule": "squaredcos_cap_v2", "prediction_type": _PREDICTION_TYPE[target]}
        self.scheduler, self.steps = DDPMScheduler(**schedule, clip_sample=True, clip_sample_range=clip), steps

    def __call__(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        self.scheduler.set_timesteps(self.steps)
        for timestep in self.scheduler.timesteps:
            predicted = denoise(sample, timestep.to(sample.device)[None])
            sample = self.scheduler.step(predicted, timestep, sample, generator=list(streams)).prev_sample
        return sample
