"""Denoising diffusion over a vector or a chunk: schedule, training pairs, samples.

One class serves the policy (actions, clipped to [-1, 1]) and the trajectory generator (standardised windows).

    forward process    x_t = sqrt(alphabar_t) x_0 + sqrt(1 - alphabar_t) eps,   t in 0..N-1, or in some of these
    training           predict the target by mean squared error, mean over all elements
    targets            `noise`      eps
                       `velocity`   sqrt(alphabar_t) eps - sqrt(1 - alphabar_t) x_0

Velocity stays well conditioned where alphabar is nearly 0 and x_0 cannot be had from eps; actions are clipped so
tightly that eps does as well for them, and eps is what the published Fisher is defined with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reconverge.policy.config import SamplerName
from reconverge.policy.noise_schedule import alphas_bar
from reconverge.policy.sampler_steps import most_steps, unfit_temperature
from reconverge.policy.samplers import Denoise, Target, make_sampler


class Diffusion:
    """A squared-cosine noise schedule of `timesteps` steps and a sampler of `sampling_steps` steps."""

    def __init__(
        self, timesteps: int, sampler: SamplerName, sampling_steps: int, clip: float, target: Target = "noise", temperature: float = 1.0,
        trained: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """`clip` bounds the sample, and in most samplers the predicted clean sample of every step.

        `temperature` scales the noise that a sample begins with: below 1 samples gather where they are likely ("low-temperature
        sampling", arXiv 2211.15657), at 0 there is one. Not with `ddpm`, which adds noise on the way. `trained` are the timesteps that
        `draw` gives, in ascending order; all where it is left out.

        Raises ValueError for more sampling steps than the sampler has room for (see `most_steps`), fewer than one, and a temperature that is not
        from 0 to 1 or below 1 for `ddpm`.
        """
        if (problem := unfit_temperature(sampler, temperature)) is not None:
            raise ValueError(f"a temperature of {temperature:g} for {sampler}: {problem}")
        if not 1 <= sampling_steps <= (most := most_steps(sampler, timesteps)):
            raise ValueError(f"{sampler} takes 1 to {most} sampling steps of {timesteps} diffusion timesteps, got {sampling_steps}")
        self.timesteps, self.clip, self.temperature = timesteps, clip, temperature
        self._sampler = make_sampler(sampler, timesteps, sampling_steps, clip, target)
        self._trained = torch.arange(timesteps) if trained is None else torch.tensor(trained)
        level = alphas_bar(timesteps)
        self._signal, self._noise = level.sqrt(), (1 - level).sqrt()

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, band: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Timesteps (B,), uniform among those that are trained (and lie in a band [low, high)), and standard normal noise of `shape`."""
        among = self._trained if band is None else self.trained_in(band)
        return among[torch.randint(len(among), (shape[0],), generator=generator)], torch.randn(shape, generator=generator)

    def trained_in(self, band: tuple[int, int]) -> Tensor:
        """The timesteps in a band [low, high) that are trained."""
        return self._trained[(self._trained >= band[0]) & (self._trained < band[1])]

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t (B, ...) from x_0 and standard normal noise of that shape, at a timestep per row (B,) in 0..N-1; all on one device."""
        signal, noise_scale = self._scales(clean, timestep)
        return signal * clean + noise_scale * noise

    def velocity(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The target `velocity` (B, ...), of the same arguments as `add_noise`."""
        signal, noise_scale = self._scales(clean, timestep)
        return signal * noise - noise_scale * clean

    @torch.no_grad()
    def sample(self, denoise: Denoise, shape: tuple[int, ...], streams: Sequence[torch.Generator], device: torch.device | str = "cpu") -> Tensor:
        """One sample of `shape` per stream: (B, *shape), denoised from noise.

        Row b draws from streams[b] alone, at the start and (`ddpm`) on the way, so it does not depend on its company.
        """
        noise = torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)
        return self.denoised(denoise, noise, streams)

    def denoised(self, denoise: Denoise, noise: Tensor, streams: Sequence[torch.Generator] = ()) -> Tensor:
        """The sample that begins with standard normal `noise` (B, ...). Only `ddpm` draws more on the way, row b from streams[b]."""
        return self._sampler(denoise, self.temperature * noise, streams).clamp(-self.clip, self.clip)

    def _scales(self, like: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (like.dim() - 1))
        return self._signal.to(like)[timestep].view(shape), self._noise.to(like)[timestep].view(shape)
