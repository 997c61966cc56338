"""What settings may be: each in its range, and none at odds with another.

Nothing is asked of the machine here, so a configuration that passes is sound everywhere.
"""

from __future__ import annotations

import re
from itertools import pairwise
from math import inf, isfinite
from operator import attrgetter

from reconverge.envs.errors import ConfigError, shown
from reconverge.launch.config import METHOD_NAME, RunConfig
from reconverge.policy.config import SamplerName
from reconverge.policy.method_settings import READS
from reconverge.policy.sampler_steps import late_start, unfit_steps, unfit_temperature

FINEST_TOUCH_M = 1e-4
"""Below a tenth of a millimetre nothing is known of where things are, and float32 runs out of numbers."""

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("seed", 0, 2**31 - 1),
    ("threads", 1, inf),
    ("save_minutes", 0, inf),
    ("policy.window", 1, inf),
    ("policy.horizon", 1, inf),
    ("policy.executed", 1, inf),
    ("policy.past_actions", 0, inf),
    ("policy.mlp.width", 1, inf),
    ("policy.mlp.blocks", 1, inf),
    ("policy.mlp.timestep_features", 4, inf),
    ("policy.unet.kernel", 1, inf),
    ("policy.unet.groups", 1, inf),
    ("policy.unet.timestep_features", 4, inf),
    ("policy.unet.attention_heads", 0, inf),
    ("policy.timesteps", 2, inf),
    ("policy.sampling_steps", 1, inf),
    ("policy.temperature", 0, 1),
    ("policy.ema_decay", 0, 0.9999),
    ("train.updates", 1, inf),
    ("train.batch_size", 1, inf),
    ("train.replay_ratio", 0, inf),
    ("train.replay_weight", 0, inf),
    ("train.replay_priority", 0, 1),
    ("train.optimizer.learning_rate", 0, inf),
    ("train.optimizer.weight_decay", 0, inf),
    ("train.optimizer.warmup_fraction", 0, 1),
    ("train.optimizer.max_gradient_norm", 0, inf),
    ("train.trust_region.strength", 0, inf),
    ("train.trust_region.radius", 1e-12, inf),
    ("train.trust_region.draws", 2, inf),
    ("train.l2.strength", 0, inf),
    ("train.mas.strength", 0, inf),
    ("train.mas.draws", 2, inf),
    ("train.si.strength", 0, inf),
    ("train.si.damping", 1e-12, inf),
    ("train.meta.inner_learning_rate", 0, inf),
    ("train.meta.momentum", 0, 1),
    ("train.update_budget.least", 0, 1),
    ("train.update_budget.sharpness", 0, inf),
    ("train.update_budget.threshold", -1, 1),
    ("train.update_budget.draws", 2, inf),
    ("train.log_every", 1, inf),
    ("replay.windows_per_task", 1, inf),
    ("replay.label_temperature", 0, 1),
    ("replay.stored_megabytes", 0, inf),
    ("replay.rollouts_per_task", 1, inf),
    ("replay.generator.width", 1, inf),
    ("replay.generator.blocks", 1, inf),
    ("replay.generator.timesteps", 2, inf),
    ("replay.generator.sampling_steps", 1, inf),
    ("replay.generator.updates", 0, inf),
    ("replay.generator.batch_size", 2, inf),
    ("replay.generator.learning_rate", 0, inf),
    ("replay.generator.touch_scale_m", 0, inf),
    ("demonstrations.episodes", 1, inf),
    ("demonstrations.hold_steps", 0, inf),
    ("demonstrations.seed", 0, inf),
    ("demonstrations.workers", 0, inf),
    ("demonstrations.action_noise", 0, 1),
    ("evaluation.episodes", 1, inf),
    ("evaluation.workers", 0, inf),
    ("recovery.episodes", 1, inf),
    ("recovery.probe_updates", 1, inf),
    ("video.episodes", 0, inf),
    ("video.stride", 1, inf),
    ("video.frames_per_second", 1, inf),
)
"""Dotted key, lowest and highest value, both allowed."""


def check(config: RunConfig) -> None:
    """Raise ConfigError for the first setting that is outside its range, or two that contradict each other."""
    for key, low, high in _RANGES:
        value = attrgetter(key)(config)
        if not (low <= value <= high and value < inf):
            raise ConfigError(f"{key} is {value}; it must be {_range_in_words(low, high)}")
    if not re.fullmatch(METHOD_NAME, config.method, re.ASCII):
        raise ConfigError(f"method is {shown(config.method)}; a name of letters, digits, dots and dashes was expected")
    _check_chunk(config)
    _check_sampling(config)
    _check_denoiser(config)
    _check_generator(config)
    _check_demonstrations(config)
    _check_evaluation(config)
    _check_video(config)
    _check_method(config)
    check_device_name(config.device)


def check_device_name(device: str) -> None:
    """Raise ConfigError for a name that torch has no device for, on any machine."""
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device, re.ASCII):
        raise ConfigError(f"device is {shown(device)}; use cpu, cuda or cuda:1")


def _range_in_words(low: float, high: float) -> str:
    return f"at least {low:g}" if high == inf else f"from {low:g} to {high:g}"


def _check_chunk(config: RunConfig) -> None:
    policy = config.policy
    if policy.past_actions + policy.executed > policy.horizon:
        raise ConfigError(
            f"policy.past_actions {policy.past_actions} + policy.executed {policy.executed} exceed policy.horizon {policy.horizon}; "
            "the executed steps must lie within the predicted ones"
        )
    if any(not (isfinite(scale) and scale > 0) for scale in policy.relative_scales_m):
        raise ConfigError(f"policy.relative_scales_m is {policy.relative_scales_m}; length scales must be positive, in metres")


def _check_sampling(config: RunConfig) -> None:
    """The sampler's steps and temperature, of who acts and of who labels."""
    policy = config.policy
    if (problem := unfit_steps(policy.sampler, policy.sampling_steps, policy)) is not None:
        raise ConfigError(f"policy.sampling_steps is {policy.sampling_steps}; {problem}: lower it, or raise policy.timesteps")
    if (problem := late_start(policy.sampler, policy.timesteps, policy.sampling_steps)) is not None:
        raise ConfigError(f"policy.sampling_steps is {policy.sampling_steps}; {problem}")
    _check_temperature(policy.sampler, policy.temperature, "policy.temperature")
    if config.replay.source == "generator":
        _check_temperature(policy.sampler, config.replay.label_temperature, "replay.label_temperature")


def _check_temperature(sampler: SamplerName, temperature: float, place: str) -> None:
    if (problem := unfit_temperature(sampler, temperature)) is not None:
        raise ConfigError(f"{place} is {temperature:g}; {problem}")


def _check_denoiser(config: RunConfig) -> None:
    unet = config.policy.unet
    if not unet.channels or min(unet.channels) < 1 or any(channels % unet.groups for channels in unet.channels):
        raise ConfigError(f"policy.unet.channels are {unet.channels}; each must be a multiple of policy.unet.groups {unet.groups}")
    if config.policy.denoiser == "unet" and config.policy.horizon % 2 ** (len(unet.channels) - 1):
        needed = 2 ** (len(unet.channels) - 1)
        raise ConfigError(f"policy.horizon is {config.policy.horizon}; a U-Net of {len(unet.channels)} levels needs a multiple of {needed}")
    if unet.attention_heads and any(channels % unet.attention_heads for channels in unet.channels[1:]):
        raise ConfigError(f"policy.unet.attention_heads is {unet.attention_heads}; it must divide the channels {unet.channels}")
    for name, features in (("mlp", config.policy.mlp.timestep_features), ("unet", unet.timestep_features)):
        if features % 2:
            raise ConfigError(f"policy.{name}.timestep_features is {features}; it must be even: half are sines, half cosines")
    if unet.kernel % 2 == 0:
        raise ConfigError(f"policy.unet.kernel is {unet.kernel}; it must be odd, so that a convolution keeps the length")


def _check_generator(config: RunConfig) -> None:
    generator = config.replay.generator
    if 0 < generator.touch_scale_m < FINEST_TOUCH_M:
        raise ConfigError(f"replay.generator.touch_scale_m is {generator.touch_scale_m}; give at least {FINEST_TOUCH_M} m, or 0 for none")
    if generator.sampling_steps > generator.timesteps:
        raise ConfigError(f"replay.generator.sampling_steps {generator.sampling_steps} exceeds its timesteps {generator.timesteps}; lower it")
    if (problem := late_start("ddim", generator.timesteps, generator.sampling_steps)) is not None:
        raise ConfigError(f"replay.generator.sampling_steps is {generator.sampling_steps}; {problem}")


def _check_demonstrations(config: RunConfig) -> None:
    paces = config.demonstrations.paces
    if not paces or any(not 0 < pace <= 10 for pace in paces):
        raise ConfigError(f"demonstrations.paces is {paces}; at least one is needed, each above 0 and at most 10")


def _check_evaluation(config: RunConfig) -> None:
    """Recovery and learning curves: their thresholds, episodes and grids."""
    for threshold in config.recovery.thresholds:
        if not 1 <= threshold <= 100:
            raise ConfigError(f"recovery.thresholds holds {threshold}; thresholds are percentages, 1 to 100")
    if config.recovery.episodes > config.evaluation.episodes:
        raise ConfigError(
            f"recovery.episodes {config.recovery.episodes} exceeds evaluation.episodes {config.evaluation.episodes}; a recovery point uses "
            "the first episodes of the evaluation, so that both can be compared"
        )
    for key, grid in (("recovery.grid", config.recovery.grid), ("evaluation.learning_grid", config.evaluation.learning_grid)):
        if any(update < 1 for update in grid) or any(b <= a for a, b in pairwise(grid)):
            raise ConfigError(f"{key} is {grid}; it must list increasing numbers of updates from 1 on")


def _check_video(config: RunConfig) -> None:
    if config.video.episodes > config.evaluation.episodes:
        raise ConfigError(f"video.episodes {config.video.episodes} exceeds evaluation.episodes {config.evaluation.episodes}, which it records")
    if min(config.video.size) < 16 or any(side % 2 for side in config.video.size):
        raise ConfigError(f"video.size is {config.video.size}; width and height must be even and at least 16 pixels")


def _check_method(config: RunConfig) -> None:
    """What a method cannot have."""
    train, region = config.train, config.train.trust_region
    if region.form != "penalty" and region.fisher == "diagonal":
        raise ConfigError(f"train.trust_region.form {region.form} does not go with train.trust_region.fisher diagonal; use the penalty form")
    if region.form == "functional" and "train.trust_region." in READS.get(config.method, ()):
        _check_functional(config)
    if train.replay_ratio > 0 and train.replayed == 0:
        raise ConfigError(
            f"train.replay_ratio is {train.replay_ratio}; of a batch of {train.batch_size} that is less than a window, so nothing "
            "would be replayed: raise it, or say 0"
        )
    if train.replay_ratio == 0 and (train.replay_priority > 0 or train.weighting == "tasks-seen"):
        setting = "replay_priority" if train.replay_priority > 0 else "weighting tasks-seen"
        raise ConfigError(f"train.{setting} weighs replayed windows, and train.replay_ratio is 0: leave one of them out")
    if config.replay.pool == "redrawn" and config.replay.source == "stored":
        raise ConfigError("replay.pool redrawn makes pools anew, and those of replay.source stored are what was seen: leave one of them out")
    if config.method in ("ftml", "vr-mcl") and train.batch_size < 2:
        raise ConfigError(f"train.batch_size is {train.batch_size}; {config.method} halves it into support and query: at least 2")
    if config.method == "single" and train.optimizer.carry_second_moment:
        raise ConfigError("train.optimizer.carry_second_moment does not go with single, which trains every task from scratch; leave it out")


def _check_functional(config: RunConfig) -> None:
    """The functional form steers the weight of a distillation loss: there must be one, and nobody else may set its weight."""
    train, form = config.train, "train.trust_region.form functional"
    if config.method == "ewc" or train.replayed == 0:
        raise ConfigError(f"{form} bounds the replay loss, and nothing is replayed; use --method trust-region with a replay_ratio above 0")
    if train.distillation == "noise":
        raise ConfigError(f"{form} bounds the distance from the teacher; train.distillation noise has another target")
    if train.replay_priority > 0:
        raise ConfigError(f"{form} bounds the mean distance from the teacher; train.replay_priority would have it see the tasks that drift most")
    if train.weighting != "fixed":
        raise ConfigError(f"{form} sets the weight of the replay loss itself; leave train.weighting {train.weighting} out")
