import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from reconverge.policy.config import PolicyConfig, SamplerName
from reconverge.policy.diffusion import Diffusion
from reconverge.policy.noise_schedule import alphas_bar, dpm_sigmas
from reconverge.policy.sampler_steps import late_start, most_steps, sampler_timesteps, trained_timesteps, unfit_steps
from reconverge.policy.samplers import Target


def streams(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(row) for row in range(count)]


def test_noise_is_added_as_diffusers_does() -> None:
    diffusion = Diffusion(50, "ddim", 5, clip=1.0)
    clean, noise, timestep = torch.randn(7, 4, 2), torch.randn(7, 4, 2), torch.arange(7) * 7
    reference = DDPMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2").add_noise(clean, noise, timestep)
    assert torch.allclose(diffusion.add_noise(clean, noise, timestep), reference, atol=1e-7)


@pytest.mark.parametrize("target", ["noise", "velocity"])
@pytest.mark.parametrize(("timesteps", "steps"), [(100, 1), (100, 2), (100, 4), (100, 7), (50, 20), (1000, 50)])
@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
def test_the_samplers_written_out_are_diffusers_loop_bit_for_bit(sampler: SamplerName, timesteps: int, steps: int, target: Target) -> None:
    network = torch.nn.Linear(2, 2)
    common = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon" if target == "noise" else "v_prediction"}
    scheduler = {
        "ddim": DDIMScheduler(timesteps, clip_sample=True, clip_sample_range=1.0, **common),
        "dpm-solver++": DPMSolverMultistepScheduler(timesteps, algorithm_type="dpmsolver++", timestep_spacing="leading", **common),
    }[sampler]
    scheduler.set_timesteps(steps)
    expected = torch.stack([torch.randn(4, 2, generator=stream) for stream in streams(5)])
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            expected = scheduler.step(network(expected), timestep, expected).prev_sample
    sample = Diffusion(timesteps, sampler, steps, 1.0, target).sample(lambda noisy, timestep: network(noisy), (4, 2), streams(5))
    assert torch.equal(sample, expected.clamp(-1, 1))


@pytest.mark.parametrize("target", ["noise", "velocity"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm-solver++"])
def test_the_perfect_denoiser_of_a_point_leads_to_the_point(sampler: SamplerName, target: Target) -> None:
    """If all data is one point x0, then eps = (x_t - sqrt(abar) x0) / sqrt(1 - abar) is exact and every sampler must find x0."""
    diffusion = Diffusion(100, sampler, 100 if sampler == "ddpm" else 10, clip=1.0, target=target)
    point = torch.tensor([0.3, -0.8])
    abar = DDPMScheduler(100, beta_schedule="squaredcos_cap_v2").alphas_cumprod

    def denoise(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        level = abar[timestep][:, None]
        noise = (noisy - level.sqrt() * point) / (1 - level).sqrt()
        return noise if target == "noise" else diffusion.velocity(point.expand_as(noise), noise, timestep)

    sample = diffusion.sample(denoise, (2,), streams(20))
    assert torch.allclose(sample, point.expand(20, 2), atol=0.02)


@pytest.mark.parametrize("temperature", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
def test_temperature_is_the_spread_of_samples_of_a_gaussian(sampler: SamplerName, temperature: float) -> None:
    """Data N(m, s^2): eps = sqrt(1 - abar) (x_t - sqrt(abar) m) / (abar s^2 + 1 - abar) is exact; samples lie around m, closer as it cools."""
    mean, spread = 0.3, 0.1
    abar = alphas_bar(100)

    def denoise(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        level = abar[timestep][:, None]
        return (1 - level).sqrt() * (noisy - level.sqrt() * mean) / (level * spread**2 + 1 - level)

    cool, warm = (Diffusion(100, sampler, 20, 1.0, temperature=each).sample(denoise, (1,), streams(500)) for each in (temperature, 1.0))
    assert float(cool.mean()) == pytest.approx(mean, abs=0.02)
    assert float(warm.std()) == pytest.approx(spread, rel=0.3)
    assert float(cool.std()) == pytest.approx(temperature * float(warm.std()), abs=1e-4)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm-solver++"])
def test_a_row_does_not_depend_on_its_company_nor_on_the_global_generator(sampler: SamplerName) -> None:
    diffusion = Diffusion(20, sampler, 5, clip=1.0)
    together = diffusion.sample(lambda noisy, timestep: 0.5 * noisy, (3,), streams(4))
    torch.manual_seed(7)
    alone = diffusion.sample(lambda noisy, timestep: 0.5 * noisy, (3,), [torch.Generator().manual_seed(2)])
    assert torch.equal(together[2], alone[0])


def test_more_sampling_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(ValueError, match="ddim takes 1 to 10 sampling steps of 10 diffusion timesteps, got 11"):
        Diffusion(10, "ddim", 11, clip=1.0)


def test_the_longest_schedule_of_dpm_solver_is_finite_and_a_longer_one_is_refused() -> None:
    sampled = Diffusion(50, "dpm-solver++", 49, clip=1.0).sample(lambda noisy, timestep: 0.5 * noisy, (3,), streams(4))
    assert sampled.isfinite().all()
    with pytest.raises(ValueError, match=r"dpm-solver\+\+ takes 1 to 49 sampling steps"):
        Diffusion(50, "dpm-solver++", 50, clip=1.0)


def test_draws_cover_all_timesteps() -> None:
    timestep, noise = Diffusion(10, "ddim", 5, 1.0).draw((4000, 2), torch.Generator().manual_seed(0))
    assert timestep.unique().tolist() == list(range(10))
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05


@pytest.mark.parametrize("timesteps", [2, 20, 50, 100, 1000])
def test_the_schedule_is_that_of_diffusers_bit_for_bit(timesteps: int) -> None:
    common = {"beta_schedule": "squaredcos_cap_v2"}
    ddim = DDIMScheduler(timesteps, **common)
    assert torch.equal(alphas_bar(timesteps), ddim.alphas_cumprod)
    for steps in range(1, min(timesteps, 60) + 1):
        ddim.set_timesteps(steps)
        dpm = DPMSolverMultistepScheduler(timesteps, algorithm_type="dpmsolver++", timestep_spacing="leading", **common)
        dpm.set_timesteps(steps)
        assert sampler_timesteps("ddim", timesteps, steps) == ddim.timesteps.tolist()
        assert sampler_timesteps("dpm-solver++", timesteps, steps) == dpm.timesteps.tolist()
        assert torch.equal(dpm_sigmas(timesteps, steps), dpm.sigmas)


@pytest.mark.parametrize(("sampler", "expected"), [("dpm-solver++", [20, 40, 60, 80]), ("ddim", [0, 25, 50, 75]), ("ddpm", [0, 25, 50, 75])])
def test_a_policy_may_be_trained_where_its_sampler_asks_alone(sampler: SamplerName, expected: list[int]) -> None:
    config = PolicyConfig(sampler=sampler, sampling_steps=4, trained_timesteps="sampler")
    assert trained_timesteps(config) == expected
    asked: list[int] = []
    diffusion = Diffusion(100, sampler, 4, clip=1.0, trained=expected)
    diffusion.sample(lambda noisy, timestep: asked.append(int(timestep)) or noisy, (2,), streams(3))  # type: ignore[func-returns-value]
    assert sorted(asked) == expected
    drawn, _ = diffusion.draw((4000, 2), torch.Generator().manual_seed(0))
    assert [float((drawn == timestep).float().mean()) for timestep in expected] == pytest.approx([0.25] * 4, abs=0.03)
    low, _ = diffusion.draw((50, 2), torch.Generator().manual_seed(0), band=(10, 50))
    assert set(low.tolist()) == {timestep for timestep in expected if 10 <= timestep < 50}


def test_a_policy_that_was_trained_at_some_timesteps_is_not_asked_at_others() -> None:
    some, every = PolicyConfig(trained_timesteps="sampler"), PolicyConfig()
    assert unfit_steps("dpm-solver++", 4, some) is None and unfit_steps("ddim", 8, every) is None
    assert "asks at timesteps 0, 25, 50, 75, and this policy was trained at 20, 40, 60, 80 alone" in (unfit_steps("ddim", 4, some) or "")


def test_steps_that_begin_in_the_middle_of_the_schedule_are_found() -> None:
    assert (sampler_timesteps("dpm-solver++", 100, 49)[0], sampler_timesteps("dpm-solver++", 100, 50)[0]) == (98, 50)
    assert "begins at timestep 50 of 100 instead of 98, for its stride is rounded down; use 49" in (late_start("dpm-solver++", 100, 50) or "")
    assert "begins at timestep 50 of 100 instead of 98, for its stride is rounded down; use 50" in (late_start("ddim", 100, 51) or "")
    assert [steps for steps in (1, 2, 4, 8, 16, 25, 33, 50, 75, 100) if late_start("ddim", 100, steps)] == []


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("timesteps", [5, 20, 50, 100, 1000])
def test_the_number_that_is_named_instead_begins_no_later(sampler: SamplerName, timesteps: int) -> None:
    for steps in range(1, most_steps(sampler, timesteps) + 1):
        if problem := late_start(sampler, timesteps, steps):
            better = int(problem.rpartition("use ")[2])
            assert late_start(sampler, timesteps, better) is None
            assert sampler_timesteps(sampler, timesteps, better)[0] >= sampler_timesteps(sampler, timesteps, steps)[0]
