"""The diffusion policy: p(next H actions | last To observations, task).

    observed   o[k-To+1] ... o[k]
    predicted              a[k-past] ... a[k] ... a[k-past+H-1]        one chunk, H steps
    executed                             a[k] ... a[k+Ha-1]            the first Ha from now on
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.envs.errors import ConfigError, UnknownName
from reconverge.envs.task import Task
from reconverge.policy.config import PolicyConfig, SamplerName
from reconverge.policy.denoiser import build_denoiser
from reconverge.policy.diffusion import Diffusion
from reconverge.policy.normalizer import Normalizer
from reconverge.policy.random_streams import seeded_initialisation, torch_stream
from reconverge.policy.relative_positions import relative_positions, relative_size
from reconverge.policy.sampler_steps import trained_timesteps, unfit_steps
from reconverge.policy.saved_arrays import fill
from reconverge.policy.saved_policy import SavedPolicy, check_weights, read_description

ACTION_BOUND = 1.0


class DiffusionPolicy(nn.Module):
    """Acts in the tasks that it was made for; see `select_action` and `predict`.

    Args:
        config: sizes of window and chunk, network, sampler.
        tasks: names of the tasks of the curriculum, in order; a window carries an index into them.
        observation_size: Do.
        action_size: Da.
        normalizer: fixed observation scaling.
        seed: seed of the initial weights.
        positions: where the positions of an observation begin (`ObservationLayout.positions`); their differences are shown to the
            network at `config.relative_scales_m`.

    Raises:
        ValueError: sampling steps or a temperature that do not fit the sampler (see `Diffusion`), or a horizon that the U-Net's levels do not divide.
    """

    def __init__(
        self,
        config: PolicyConfig,
        tasks: Sequence[str],
        observation_size: int,
        action_size: int,
        normalizer: Normalizer,
        seed: int,
        positions: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.config, self.tasks = config, tuple(tasks)
        self.observation_size, self.action_size = observation_size, action_size
        self.normalizer = normalizer
        self.positions = tuple(positions)
        condition_size = SavedPolicy(config, self.tasks, observation_size, action_size, self.positions).condition_size
        with seeded_initialisation("initial weights", seed):
            self.denoiser = build_denoiser(config, action_size, condition_size)
        self.diffusion = _acting_diffusion(config, trained_timesteps(config))
        self.reset()

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.denoiser.parameters())

    @property
    def device(self) -> torch.device:
        return self.normalizer.centre.device

    def task_index(self, task: str | Task) -> int:
        """Position of a task among those of the policy; `hammer` stands for `hammer-v3`."""
        name = task if isinstance(task, str) else task.name
        name = f"{name}-v3" if name not in self.tasks and f"{name}-v3" in self.tasks else name
        if name not in self.tasks:
            raise UnknownName("task", name, self.tasks, "this policy")
        return self.tasks.index(name)

    # learning

    def condition(self, observations: Tensor, task: Tensor) -> Tensor:
        """(B, To, Do) in the task's units and (B,) task indices -> (B, C), the denoiser's condition."""
        return self.condition_told(observations, nn.functional.one_hot(task, len(self.tasks)) if self.config.task_conditioned else None)

    def condition_told(self, observations: Tensor, told: Tensor | None) -> Tensor:
        """The same from the tasks as one-hot vectors (B, T), or None for a policy that is not told."""
        seen = self.normalizer(observations)
        if relative_size(self.positions, self.config.relative_scales_m):
            seen = torch.cat([seen, relative_positions(observations, self.positions, self.config.relative_scales_m)], dim=-1)
        seen = seen.flatten(1)
        return seen if told is None else torch.cat([seen, told.to(seen.dtype)], dim=-1)

    def predict_noise(self, noisy: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Noisy chunks (B, H, Da), a timestep per row (B,) in 0..N-1, what `condition` gave (B, C) -> the noise in them (B, H, Da)."""
        return self.denoiser(noisy, timestep, condition)

    # acting

    def sample_chunk(self, observations: Tensor, task: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
        """One chunk per row: (B, To, Do), (B,) and B streams to draw noise from -> actions (B, H, Da) in [-1, 1]."""
        with torch.no_grad():
            prepared = self.denoiser.embed_condition(self.condition(observations, task))
            shape = (self.config.horizon, self.action_size)
            return self.diffusion.sample(lambda noisy, timestep: self.denoiser.denoise(noisy, timestep, prepared), shape, streams, self.device)

    def executed(self, chunk: Tensor) -> Tensor:
        """The Ha actions of a chunk (B, H, Da) that are executed."""
        return chunk[:, self.config.past_actions : self.config.past_actions + self.config.executed]

    def reset(self, environments: Sequence[int] | None = None) -> None:
        """Forget the observations and queued actions of some environments, or of all; call it when an episode starts."""
        if environments is None:
            self._acting: ActingState = ActingState({}, {}, {})
        else:
            for environment in environments:
                self._acting.forget(environment)

    def select_action(self, observations: np.ndarray, task: str | Task, seed: int = 0) -> np.ndarray:
        """The next action of every environment, (n, Do) -> (n, Da).

        Each environment has its own queue of executed actions; a new chunk is sampled where the queue is
        empty. Noise is a pure function of (seed, environment, chunk).
        """
        return self._act(self._acting, np.asarray(observations), self.task_index(task), seed)

    def predict(
        self,
        observation: np.ndarray,
        state: ActingState | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        task: str | Task | None = None,
    ) -> tuple[np.ndarray, ActingState]:
        """The signature of stable-baselines3: (Do,) or (n, Do) -> actions of the same leading shape, and the next state.

        `task` may be left out for a policy of one task. The policy samples, so `deterministic` changes nothing:
        the noise is fixed by the environment's number and the number of chunks sampled since the episode started.
        """
        if task is None and len(self.tasks) > 1:
            raise ValueError(f"this policy knows {len(self.tasks)} tasks: pass task=..., one of {', '.join(self.tasks)}")
        batch = np.atleast_2d(observation)
        state = state.copy() if state is not None else ActingState({}, {}, {})
        for environment in np.flatnonzero(episode_start) if episode_start is not None else ():
            state.forget(int(environment))
        actions = self._act(state, batch, self.task_index(task or self.tasks[0]), seed=0)
        return (actions if np.ndim(observation) == 2 else actions[0]), state

    def _act(self, state: ActingState, observations: np.ndarray, task: int, seed: int) -> np.ndarray:
        if observations.ndim != 2 or observations.shape[1] != self.observation_size:
            raise ValueError(f"observations must have the shape (environments, {self.observation_size}), not {observations.shape}")
        if not np.isfinite(observations).all():
            raise ValueError("observations hold a number that is not finite; nothing was acted on")
        for environment, observation in enumerate(observations):
            state.observe(environment, observation, self.config.window)
        empty = [environment for environment in range(len(observations)) if not state.queues.get(environment)]
        if empty:
            seen = torch.from_numpy(np.stack([np.stack(state.histories[environment]) for environment in empty])).float()
            streams = [torch_stream("acting", seed, environment, state.chunks.get(environment, 0)) for environment in empty]
            labels = torch.full((len(empty),), task, device=self.device)
            chunk = self.executed(self.sample_chunk(seen.to(self.device), labels, streams))
            for environment, actions in zip(empty, chunk.cpu().numpy(), strict=True):
                state.queues[environment] = list(actions)
                state.chunks[environment] = state.chunks.get(environment, 0) + 1
        return np.stack([state.queues[environment].pop(0) for environment in range(len(observations))])

    # keeping

    def acting_with(
        self, *, sampler: SamplerName | None = None, sampling_steps: int | None = None, temperature: float | None = None
    ) -> DiffusionPolicy:
        """A frozen copy that acts with another sampler, number of steps or temperature; what is None stays.

        Raises ConfigError for a number of steps that does not fit, such as one that asks at timesteps at which this policy was not trained,
        and ValueError for a temperature that does not (see `unfit_steps`, `unfit_temperature`).
        """
        own = self.config
        config = replace(
            own,
            sampler=own.sampler if sampler is None else sampler,
            sampling_steps=own.sampling_steps if sampling_steps is None else sampling_steps,
            temperature=own.temperature if temperature is None else temperature,
        )
        if (problem := unfit_steps(config.sampler, config.sampling_steps, own)) is not None:
            raise ConfigError(f"sampling_steps is {config.sampling_steps}; {problem}")
        twin = self.clone()
        twin.config, twin.diffusion = config, _acting_diffusion(config, trained_timesteps(own))
        return twin

    def clone(self) -> DiffusionPolicy:
        """A frozen copy: the teacher, or the averaged weights to act with."""
        return copy.deepcopy(self).requires_grad_(False)

    def untrained(self, seed: int) -> DiffusionPolicy:
        """The same policy with the initial weights of a seed."""
        sizes = self.observation_size, self.action_size
        normalizer = Normalizer(self.normalizer.centre, self.normalizer.scale)
        return DiffusionPolicy(self.config, self.tasks, *sizes, normalizer, seed, self.positions).to(self.device)

    def description(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "tasks": list(self.tasks),
            "observation_size": self.observation_size,
            "action_size": self.action_size,
            "positions": list(self.positions),
        }

    def save(self, folder: Path) -> None:
        """Write `policy.safetensors` and `policy.json` to `folder`, hashed and atomically."""
        write_artifact(folder, {"policy.safetensors": arrays_of(self.state_dict()), "policy.json": self.description()})

    @classmethod
    def load(cls, folder: Path | str, device: str | torch.device = "cpu") -> DiffusionPolicy:
        """Read what `save` wrote; raises DamagedFile when a file is missing or changed, or when what it holds is no policy's finite weights."""
        return cls.from_artifact(Artifact(Path(folder))).to(device)

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> DiffusionPolicy:
        saved = read_description(artifact.json("policy.json"), str(artifact.folder / "policy.json"))
        arrays, place = artifact.arrays("policy.safetensors"), str(artifact.folder / "policy.safetensors")
        check_weights(saved, arrays, place)
        normalizer = Normalizer(torch.from_numpy(arrays["normalizer.centre"]), torch.from_numpy(arrays["normalizer.scale"]))
        policy = cls(saved.config, saved.tasks, saved.observation_size, saved.action_size, normalizer, seed=0, positions=saved.positions)
        fill(policy, arrays, place)
        return policy


class ActingState:
    """What acting remembers of each environment: the last To observations, queued actions, chunks sampled so far."""

    def __init__(
        self, histories: dict[int, list[np.ndarray]], queues: dict[int, list[np.ndarray]], chunks: dict[int, int]
    ) -> None:
        self.histories, self.queues, self.chunks = histories, queues, chunks

    def observe(self, environment: int, observation: np.ndarray, window: int) -> None:
        history = self.histories.get(environment) or [observation] * window
        self.histories[environment] = [*history[1:], observation]

    def forget(self, environment: int) -> None:
        for memory in (self.histories, self.queues, self.chunks):
            memory.pop(environment, None)

    def copy(self) -> ActingState:
        histories, queues = ({key: list(value) for key, value in memory.items()} for memory in (self.histories, self.queues))
        return ActingState(histories, queues, dict(self.chunks))


def arrays_of(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors as NumPy arrays on the CPU, ready to be written."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _acting_diffusion(config: PolicyConfig, trained: Sequence[int]) -> Diffusion:
    return Diffusion(config.timesteps, config.sampler, config.sampling_steps, ACTION_BOUND, temperature=config.temperature, trained=trained)
