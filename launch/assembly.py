"""From a configuration to the objects that run: policy, method, replay source, learner."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reconverge.envs.demonstrations import Demonstrations
from reconverge.envs.task import Task
from reconverge.launch.config import RunConfig
from reconverge.policy.config import PolicyConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.hooks import Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.bounds import finetune, joint
from reconverge.policy.methods.ewc import ewc
from reconverge.policy.methods.replay import replay
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.normalizer import Normalizer
from reconverge.policy.windows import WindowTable
from reconverge.replay.generated_windows import GeneratedWindows
from reconverge.replay.source import ReplaySource
from reconverge.replay.stored_windows import StoredWindows
from reconverge.replay.trajectory_generator import TrajectoryGenerator
from reconverge.replay.window_code import WindowCode


@dataclass(frozen=True)
class Assembly:
    """A learner and, for methods that replay, the source it draws from."""

    learner: Learner
    source: ReplaySource | None


def assemble(config: RunConfig, tasks: list[Task], first_demonstrations: Demonstrations | None) -> Assembly:
    """`tasks` are the curriculum's distinct tasks. Where they declare no range, the first one's demonstrations set the normaliser;
    without them it is a placeholder, for a checkpoint to fill."""
    device = torch.device(config.device)
    policy = make_policy(config, tasks, first_demonstrations).to(device)
    source = make_source(config, tasks, device) if config.method in ("replay", "trust-region") else None
    method = make_method(config, source, policy.parameter_count, device)
    return Assembly(Learner(policy, method, config.train, config.seed), source)


def make_policy(config: RunConfig, tasks: list[Task], first_demonstrations: Demonstrations | None) -> DiffusionPolicy:
    first = tasks[0]
    if first.observation_centre is None and first_demonstrations is None:
        normalizer = Normalizer(torch.zeros(first.observation_size), torch.ones(first.observation_size))
    else:
        episodes = first_demonstrations.episodes if first_demonstrations is not None else []
        observations = torch.cat([torch.from_numpy(episode.observations).float() for episode in episodes]) if episodes else None
        normalizer = Normalizer.for_task(first, observations)
    names = [task.name for task in tasks]
    return DiffusionPolicy(config.policy, names, first.observation_size, first.action_size, normalizer, config.seed)


def make_source(config: RunConfig, tasks: list[Task], device: torch.device) -> ReplaySource:
    if config.replay.source == "stored":
        return StoredWindows(config.replay, device)
    code = WindowCode(tasks[0].layout, config.policy.window)
    generator = TrajectoryGenerator(config.replay.generator, code, len(tasks), config.seed)
    return GeneratedWindows(config.replay, generator.to(device))


def make_method(config: RunConfig, source: ReplaySource | None, parameters: int, device: torch.device) -> Method:
    match config.method:
        case "finetune":
            return finetune()
        case "joint":
            return joint()
        case "ewc":
            return ewc(config.train.trust_region, parameters, device)
        case "replay":
            assert source is not None
            return replay(source)
        case "trust-region":
            assert source is not None
            return trust_region(source, config.train.trust_region, parameters, device)


def make_windows(demonstrations: Demonstrations, task: int, config: PolicyConfig) -> WindowTable:
    """The windows of one task's demonstrations, labelled with its index."""
    return WindowTable.from_episodes(
        demonstrations.episodes,
        task,
        window=config.window,
        horizon=config.horizon,
        past_actions=config.past_actions,
        episode_horizon=demonstrations.task.horizon,
    )
