import dataclasses

import pytest
import torch
from small_policy import random_windows, small_policy

from reconverge.eval.action_spread import action_spread


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_error_of_a_sample_is_its_spread_and_the_error_of_the_mean() -> None:
    found = action_spread(small_policy(), random_windows(10).all(), 8, stream())
    assert (found.windows, found.samples) == (10, 8)
    assert found.spread > 0.01
    assert found.sample_error**2 == pytest.approx(found.spread**2 + found.mean_error**2, rel=1e-4)


def test_a_policy_whose_samples_are_the_experts_actions_has_neither() -> None:
    """A network that predicts all of the noise leaves the point that it began at."""
    policy = small_policy(sampler="ddim", sampling_steps=20)
    schedule = policy.diffusion
    point = torch.tensor(0.25)

    def perfect(noisy: torch.Tensor, timestep: torch.Tensor, prepared: torch.Tensor) -> torch.Tensor:
        signal, noise = schedule._scales(noisy, timestep)
        return (noisy - signal * point) / noise

    policy.denoiser.denoise = perfect
    windows = random_windows(6).all()
    done = dataclasses.replace(windows, actions=torch.full_like(windows.actions, 0.25))
    found = action_spread(policy, done, 4, stream())
    assert max(found.spread, found.sample_error, found.centre_error) < 1e-3


def test_it_does_not_matter_at_what_temperature_the_policy_acts() -> None:
    windows = random_windows(5).all()
    assert action_spread(small_policy(temperature=0.0), windows, 3, stream()) == action_spread(small_policy(), windows, 3, stream())


def test_a_policy_that_acts_by_ddpm_is_measured_too() -> None:
    """Which has no temperature 0: its centre is denoised by DDIM, at the same timesteps."""
    policy, windows = small_policy(sampler="ddpm"), random_windows(5).all()
    found = action_spread(policy, windows, 3, stream())
    assert found.spread > 0.01
    assert found.centre_error == action_spread(policy.acting_with(sampler="ddim"), windows, 3, stream()).centre_error
