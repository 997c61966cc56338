"""Denoising diffusion over a vector or a chunk: schedule, training pairs and samplers.

The schedules and samplers are those of `diffusers`; this file holds them together, so that the same
class serves the policy (actions, clipped to [-1, 1]) and the trajectory generator (standardised windows). One is written
out: DDIM, the default, whose coefficients are worked out once instead of in every step, and which is otherwise the same
arithmetic in the same order, so the samples are diffusers' own to the last bit.

    forward process    x_t = sqrt(alphabar_t) x_0 + sqrt(1 - alphabar_t) eps,   t in 0..N-1
    training           predict the target by mean squared error, mean over all elements
    targets            `noise`      eps
                       `velocity`   sqrt(alphabar_t) eps - sqrt(1 - alphabar_t) x_0

Velocity stays well conditioned where alphabar is nearly 0 and x_0 cannot be had from eps; actions are clipped so
tightly that eps does as well for them, and eps is what the published Fisher is defined with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from reconverge.policy.config import SamplerName

Target = Literal["noise", "velocity"]
Denoise = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, ...), t (1,) of all rows) -> predicted target

_PREDICTION_TYPE = {"noise": "epsilon", "velocity": "v_prediction"}


class Diffusion:
    """A squared-cosine noise schedule of `timesteps` steps and a sampler of `sampling_steps` steps."""

    def __init__(self, timesteps: int, sampler: SamplerName, sampling_steps: int, clip: float, target: Target = "noise") -> None:
        """`clip` bounds the predicted clean sample in every sampling step."""
        if not 1 <= sampling_steps <= timesteps:
            raise ValueError(f"sampling_steps must be in 1..{timesteps} (the diffusion timesteps), got {sampling_steps}")
        self.timesteps, self.sampler, self.sampling_steps, self.clip = timesteps, sampler, sampling_steps, clip
        self._common = {"num_train_timesteps": timesteps, "beta_schedule": "squaredcos_cap_v2", "prediction_type": _PREDICTION_TYPE[target]}
        alphas_bar = DDPMScheduler(**self._common).alphas_cumprod
        self._signal, self._noise = alphas_bar.sqrt(), (1 - alphas_bar).sqrt()
        self._velocity = target == "velocity"
        self._ddim_steps = _ddim_steps(timesteps, sampling_steps, alphas_bar) if sampler == "ddim" else []

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) uniform in 0..N-1 and standard normal noise of `shape`."""
        return torch.randint(self.timesteps, (shape[0],), generator=generator), torch.randn(shape, generator=generator)

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        signal, noise_scale = self._scales(clean, timestep)
        return signal * clean + noise_scale * noise

    def velocity(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        signal, noise_scale = self._scales(clean, timestep)
        return signal * noise - noise_scale * clean

    @torch.no_grad()
    def sample(self, denoise: Denoise, shape: tuple[int, ...], streams: Sequence[torch.Generator], device: torch.device | str = "cpu") -> Tensor:
        """One sample of `shape` per stream: (B, *shape), denoised from noise in `sampling_steps` steps.

        Row b draws from streams[b] alone, at the start and (`ddpm`) on the way, so it does not depend on its company.
        """
        sample = torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)
        sample = self._sample_ddim(denoise, sample) if self.sampler == "ddim" else self._sample_with_scheduler(denoise, sample, streams)
        return sample.clamp(-self.clip, self.clip)

    def _sample_ddim(self, denoise: Denoise, sample: Tensor) -> Tensor:
        """DDIM without added noise (arXiv 2010.02502, equation 12)."""
        for step in self._ddim_steps:
            predicted = denoise(sample, torch.tensor([step.timestep], device=sample.device))
            if self._velocity:
                clean, noise = step.signal * sample - step.noise * predicted, step.signal * predicted + step.noise * sample
            else:
                clean, noise = (sample - step.noise * predicted) / step.signal, predicted
            sample = step.next_signal * clean.clamp_(-self.clip, self.clip) + step.next_noise * noise
        return sample

    def _sample_with_scheduler(self, denoise: Denoise, sample: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        scheduler = self._make_scheduler()
        scheduler.set_timesteps(self.sampling_steps)
        extra = {"generator": list(streams)} if self.sampler == "ddpm" else {}
        for timestep in scheduler.timesteps:
            predicted = denoise(sample, timestep.to(sample.device)[None])
            sample = scheduler.step(predicted, timestep, sample, **extra).prev_sample
        return sample

    def _scales(self, like: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (like.dim() - 1))
        return self._signal.to(like)[timestep].view(shape), self._noise.to(like)[timestep].view(shape)

    def _make_scheduler(self) -> Any:
        clipped = {"clip_sample": True, "clip_sample_range": self.clip}
        if self.sampler == "ddpm":
            return DDPMScheduler(**self._common, **clipped)
        return DPMSolverMultistepScheduler(**self._common, algorithm_type="dpmsolver++", timestep_spacing="leading")


class _DDIMStep(NamedTuple):
    """sqrt(alphabar) and sqrt(1 - alphabar) before and after one step."""

    timestep: int
    signal: float
    noise: float
    next_signal: float
    next_noise: float


def _ddim_steps(timesteps: int, sampling_steps: int, alphas_bar: Tensor) -> list[_DDIMStep]:
    """Evenly spaced from above down to timestep 0, and from there to the clean sample (diffusers' "leading" spacing)."""
    stride = timesteps // sampling_steps
    steps = []
    for timestep in range((sampling_steps - 1) * stride, -1, -stride):
        now, after = alphas_bar[timestep], alphas_bar[timestep - stride] if timestep >= stride else torch.tensor(1.0)
        steps.append(_DDIMStep(timestep, *(float(value**0.5) for value in (now, 1 - now, after, 1 - after))))
    return steps
