"""What `policy.json` says of a policy, checked before a network is built from it.

    {"config": {...}, "tasks": ["hammer-v3"], "observation_size": 39, "action_size": 4, "positions": [0, 4]}

The file may be anybody's. A width of a billion would be built before the weights turn out not to fit, so the network is laid out
first without any memory (on torch's meta device), and its names and shapes are compared with those of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch

from reconverge.envs.errors import DamagedFile, ReconvergeError, shown
from reconverge.envs.strict_settings import from_mapping
from reconverge.policy.config import PolicyConfig
from reconverge.policy.denoiser import build_denoiser
from reconverge.policy.random_streams import seeded_initialisation
from reconverge.policy.relative_positions import POSITION_SIZE, relative_size
from reconverge.policy.sampler_steps import most_steps, unfit_temperature
from reconverge.policy.saved_arrays import check_fit

LARGEST_SIZE = 100_000
"""Of any whole number in the description: widths, steps, sizes."""
MOST_TIMESTEPS = 10_000
MOST_TASKS = 1000


@dataclass(frozen=True)
class SavedPolicy:
    """Everything that a policy is made from but its weights."""

    config: PolicyConfig
    tasks: tuple[str, ...]
    observation_size: int
    action_size: int
    positions: tuple[int, ...] = ()

    @property
    def condition_size(self) -> int:
        """C: what the denoiser is told beside the noisy chunk."""
        seen = self.observation_size + relative_size(self.positions, self.config.relative_scales_m)
        return self.config.window * seen + (len(self.tasks) if self.config.task_conditioned else 0)


def read_description(content: Any, place: str) -> SavedPolicy:
    """The content of policy.json. Raises DamagedFile, naming the place, for a description that no `save` has written."""
    try:
        before = {"relative_scales_m": ()}  # a policy saved before there were any has none
        saved = from_mapping(SavedPolicy, {**content, "config": {**before, **content["config"]}}, place)
        _check(saved)
    except (ReconvergeError, KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"{place} does not describe a policy ({error}); redo the run, or load it with the version that wrote it") from error
    return saved


def check_weights(saved: SavedPolicy, arrays: Mapping[str, np.ndarray], place: str) -> None:
    """Raise DamagedFile unless the arrays are exactly the finite weights of the policy described; takes no memory for them."""
    if saved.config.denoiser == "residual-mlp" and saved.config.mlp.blocks > len(arrays):
        raise DamagedFile(f"{place} holds {len(arrays)} arrays, too few for the network that policy.json describes; redo the run")
    try:
        with torch.device("meta"), seeded_initialisation("shapes only"):
            denoiser = build_denoiser(saved.config, saved.action_size, saved.condition_size)
    # Whatever torch says of sizes that do not go together.
    except (RuntimeError, ValueError, TypeError, ArithmeticError, AssertionError, LookupError) as error:
        raise DamagedFile(f"{place}: no network can be built as policy.json describes it ({str(error)[:200]}); redo the run") from error
    expected: dict[str, Any] = {f"denoiser.{name}": (tuple(tensor.shape), tensor.dtype) for name, tensor in denoiser.state_dict().items()}
    expected |= {f"normalizer.{name}": ((saved.observation_size,), torch.float32) for name in ("centre", "scale")}
    check_fit(arrays, expected, place)
    if not (arrays["normalizer.scale"] > 0).all():
        raise DamagedFile(f"{place}: 'normalizer.scale' must be positive everywhere; redo the run")


def _check(saved: SavedPolicy) -> None:
    """Raise ValueError for sizes that no policy has."""
    config = saved.config
    too_large = [size for size in _whole_numbers(saved) if not 0 <= size <= LARGEST_SIZE]
    if too_large or len(saved.positions) > LARGEST_SIZE // 100 or len(config.unet.channels) > 16 or len(config.relative_scales_m) > 100:
        raise ValueError(f"a size of {shown(too_large[0]) if too_large else 'a list'} is out of range")
    # An observation may be of size 0: what generates images observes nothing.
    if min(saved.action_size, config.window, config.horizon, config.executed, config.sampling_steps) < 1:
        raise ValueError("a size is less than 1")
    if not 2 <= config.timesteps <= MOST_TIMESTEPS or config.sampling_steps > most_steps(config.sampler, config.timesteps):
        raise ValueError(f"{config.sampling_steps} sampling steps of {config.timesteps} timesteps")
    if unfit_temperature(config.sampler, config.temperature) is not None:
        raise ValueError(f"a temperature of {config.temperature}")
    if config.past_actions + config.executed > config.horizon:
        raise ValueError("more steps are executed than predicted")
    if not saved.tasks or len(saved.tasks) > MOST_TASKS or len(set(saved.tasks)) != len(saved.tasks):
        raise ValueError("its tasks are not distinct names")
    if any(start + POSITION_SIZE > saved.observation_size for start in saved.positions) or any(scale <= 0 for scale in config.relative_scales_m):
        raise ValueError("a position lies outside the observation, or a scale is not positive")
    if config.mlp.timestep_features < 4 or config.unet.timestep_features < 4:
        raise ValueError("fewer than 4 timestep features")


def _whole_numbers(settings: Any) -> Iterator[int]:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from _whole_numbers(value)
        for item in value if isinstance(value, tuple) else (value,):
            if type(item) is int:
                yield item
