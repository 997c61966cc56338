"""Where on the noise schedule a sampler asks the network, and what it can be told. Without torch, so that `--help` answers at once.

    (100 timesteps, 4 steps)      ddim, ddpm   75  50  25   0
                                  dpm-solver++ 80  60  40  20        its last step goes on to no noise
"""

from __future__ import annotations

from reconverge.policy.config import PolicyConfig, SamplerName


def sampler_timesteps(sampler: SamplerName, timesteps: int, steps: int) -> list[int]:
    """The timesteps of a sampler, the noisiest first: evenly spaced; DPM-Solver++ leaves the least noisy one of steps + 1 out.

    The stride is rounded down, as in diffusers, so the first timestep may lie far below the noise that a sample begins with, see `late_start`.
    """
    if sampler == "dpm-solver++":
        stride = timesteps // (steps + 1)
        return [step * stride for step in reversed(range(1, steps + 1))]
    stride = timesteps // steps
    return [step * stride for step in reversed(range(steps))]


def trained_timesteps(config: PolicyConfig) -> list[int]:
    """The timesteps that a policy is trained at, in ascending order."""
    if config.trained_timesteps == "all":
        return list(range(config.timesteps))
    return sampler_timesteps(config.sampler, config.timesteps, config.sampling_steps)[::-1]


def most_steps(sampler: SamplerName, timesteps: int) -> int:
    """Sampling steps that a schedule of `timesteps` has room for."""
    return timesteps - 1 if sampler == "dpm-solver++" else timesteps


def late_start(sampler: SamplerName, timesteps: int, steps: int) -> str | None:
    """What is wrong with so many steps (see `most_steps`) where rounding the stride down leaves out more than a quarter of the schedule, or None.

    With 100 timesteps dpm-solver++ begins at 98 in 49 steps and at 50 in 50: it takes pure noise for half a sample.
    """
    parts = steps + 1 if sampler == "dpm-solver++" else steps  # of the schedule, each of one stride
    stride = timesteps // parts
    first, meant = (parts - 1) * stride, (parts - 1) * timesteps // parts
    if first >= 0.75 * meant:
        return None
    better = steps - parts + timesteps // (stride + 1)
    return f"with {steps} steps {sampler} begins at timestep {first} of {timesteps} instead of {meant}, for its stride is rounded down; use {better}"


def unfit_temperature(sampler: SamplerName, temperature: float) -> str | None:
    """What is wrong with a temperature for a sampler, or None."""
    if not 0 <= temperature <= 1:
        return "it must be from 0 to 1"
    if sampler == "ddpm" and temperature < 1:
        return "ddpm adds noise on the way, whatever it begins with: use ddim or dpm-solver++, or 1"
    return None


def unfit_steps(sampler: SamplerName, steps: int, trained: PolicyConfig) -> str | None:
    """What is wrong with so many steps of a sampler for a policy that was trained like this, or None."""
    if not 1 <= steps <= (most := most_steps(sampler, trained.timesteps)):
        return f"{sampler} takes 1 to {most} of {trained.timesteps} timesteps"
    known = trained_timesteps(trained)
    if unknown := sorted(set(sampler_timesteps(sampler, trained.timesteps, steps)) - set(known)):
        listed = ", ".join(map(str, unknown[:4])) + (" ..." if len(unknown) > 4 else "")
        return (
            f"{sampler} asks at timesteps {listed}, and this policy was trained at {', '.join(map(str, known))} alone: "
            "train with --policy.trained-timesteps all to compare samplers"
        )
    return None
