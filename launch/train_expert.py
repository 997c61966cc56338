"""Training an expert with stable-baselines3, and keeping of it what acts: weights and observation scaling, without code.

    environment, actions stretched to [-1, 1]  ->  SAC | TD3 | PPO  ->  its actor's layers  ->  ActorNetwork (envs/actor_network.py)

Asked to stop, training ends between two steps and what has been learned is kept; it is kept every few minutes as well.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.wrappers import RescaleAction, TimeLimit
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import nn

from reconverge.envs.actor_network import ActorNetwork
from reconverge.envs.episodes import episode_seed
from reconverge.envs.gym_env import DEFAULT_HORIZON
from reconverge.envs.gym_name import GymName
from reconverge.envs.task import Task
from reconverge.envs.tasks import make_env
from reconverge.launch.progress import Tick
from reconverge.launch.stop_request import Stopped, StopRequest

Algorithm = Literal["sac", "td3", "ppo"]
SAVE_S = 120.0
"""Seconds between two saves: the most that a crash can lose."""
_NAMES = {nn.Linear: "linear", nn.ReLU: "relu", nn.Tanh: "tanh"}


@dataclass(frozen=True)
class ExpertTraining:
    """What shall be trained.

    Attributes:
        normalize: scale observations and rewards by their running statistics, which are kept beside the weights.
        hidden: widths of the actor's and the critic's hidden layers.
    """

    name: GymName
    algorithm: Algorithm
    steps: int
    seed: int = 0
    normalize: bool = False
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4

    def run(self, keep: Callable[[ActorNetwork], None], tick: Tick | None = None) -> ActorNetwork:
        """Train; `keep` is called with what there is every few minutes and at the end. Ends early where a signal asks for it.

        stable-baselines3 draws from the global generators, which it seeds; nothing else here does.
        """
        env: VecEnv = DummyVecEnv([self._environment])
        if self.normalize:
            env = VecNormalize(env)
        learned: list[ActorNetwork] = []
        try:
            model = self._model(env)
            model.set_logger(Logger(None, []))  # else it makes a folder for its log, which nobody reads
            with contextlib.suppress(Stopped), StopRequest() as stop, stop.held():
                model.learn(self.steps, callback=_Watch(lambda: keep(self._actor(model)), lambda: stop.wanted, tick))
                learned.append(self._actor(model))
                keep(learned[0])
        finally:
            env.close()
        if not learned:  # asked to stop before it began
            raise KeyboardInterrupt
        return learned[0]

    def _environment(self) -> gymnasium.Env[Any, Any]:
        env: gymnasium.Env[Any, Any] = gymnasium.make(self.name.environment, **self.name.arguments)
        if env.spec is None or env.spec.max_episode_steps is None:
            env = TimeLimit(env, DEFAULT_HORIZON)  # as its task ends
        return RescaleAction(env, np.float32(-1.0), np.float32(1.0))

    def _model(self, env: VecEnv) -> Any:
        shared: dict[str, Any] = {"seed": self.seed, "device": "cpu", "learning_rate": self.learning_rate}
        shared["policy_kwargs"] = {"net_arch": list(self.hidden)}
        if self.algorithm == "ppo":
            return PPO("MlpPolicy", env, **shared)
        shared["learning_starts"] = min(1000, self.steps // 4)
        if self.algorithm == "sac":
            return SAC("MlpPolicy", env, **shared)
        size = env.action_space.shape[0] if env.action_space.shape else 0
        return TD3("MlpPolicy", env, action_noise=NormalActionNoise(np.zeros(size), np.full(size, 0.1)), **shared)

    def _actor(self, model: Any) -> ActorNetwork:
        """The deterministic actor of a model as layers: SAC's mean through tanh, TD3's actor, PPO's mean."""
        policy = model.policy
        if self.algorithm == "sac":
            modules = [*policy.actor.latent_pi, policy.actor.mu, nn.Tanh()]
        elif self.algorithm == "td3":
            modules = list(policy.actor.mu)
        else:
            modules = [*policy.mlp_extractor.policy_net, policy.action_net]
        layers = tuple(_NAMES[type(module)] for module in modules)
        weights = dict(_weights(modules))
        scaling = model.get_vec_normalize_env()
        if scaling is not None:
            weights["observation.mean"] = scaling.obs_rms.mean.astype(np.float32)
            weights["observation.variance"] = scaling.obs_rms.var.astype(np.float32)
        return ActorNetwork(layers, weights, float(scaling.clip_obs) if scaling is not None else 10.0, self._facts(model.num_timesteps))

    def _facts(self, steps: int) -> dict[str, Any]:
        packages = ("gymnasium", "stable-baselines3", "torch")
        settings = {"algorithm": self.algorithm, "seed": self.seed, "normalize": self.normalize, "learning_rate": self.learning_rate}
        return {"environment": str(self.name), **settings, "steps": steps, "versions": {name: version(name) for name in packages}}


@dataclass(frozen=True)
class ExpertScore:
    """What an expert reached in `episodes` episodes; `returns` are the sums of their rewards, (episodes,)."""

    episodes: int
    successes: int
    returns: np.ndarray


def score(actor: ActorNetwork, task: Task, episodes: int) -> ExpertScore:
    """The actor in episodes with fixed seeds. An episode succeeds where any of its steps does."""
    env, returns, successes = make_env(task), np.zeros(episodes), 0
    try:
        for number in range(episodes):
            observation, _ = env.reset(seed=episode_seed("expert", task.name, number))
            ended = succeeded = False
            while not ended:
                observation, reward, _, ended, info = env.step(actor.act(observation))
                returns[number] += reward
                succeeded |= info["success"]
            successes += succeeded
    finally:
        env.close()
    return ExpertScore(episodes, successes, returns)


def _weights(modules: list[nn.Module]) -> Iterator[tuple[str, np.ndarray]]:
    for number, module in enumerate(modules):
        if isinstance(module, nn.Linear):
            yield f"{number}.weight", module.weight.detach().numpy().copy()
            yield f"{number}.bias", module.bias.detach().numpy().copy()


class _Watch(BaseCallback):
    """Counts steps, saves now and then, and ends the training where that is wanted."""

    def __init__(self, save: Callable[[], None], stop: Callable[[], bool], tick: Tick | None) -> None:
        super().__init__()
        self._save, self._stop, self._tick, self._saved_s = save, stop, tick, time.monotonic()

    def _on_step(self) -> bool:
        if self._tick is not None:
            self._tick.at(min(self.num_timesteps, self._tick.total or self.num_timesteps))
        if time.monotonic() - self._saved_s > SAVE_S:
            self._save()
            self._saved_s = time.monotonic()
        return not self._stop()
