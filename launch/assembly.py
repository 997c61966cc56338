"""From a configuration to the objects that run: policy, method, replay source, learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from reconverge.envs.episodes import Episode
from reconverge.envs.simulators import EpisodeStart, Simulators
from reconverge.envs.task import Task
from reconverge.eval.rollout import rollout
from reconverge.launch.config import METHODS, REPLAYING, RunConfig
from reconverge.launch.own_methods import load_own_method
from reconverge.policy.config import PolicyConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.hooks import Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods import t_dgr
from reconverge.policy.methods.adaptive import adaptive, adaptive_trust_region
from reconverge.policy.methods.bounds import finetune, joint, single
from reconverge.policy.methods.ewc import ewc
from reconverge.policy.methods.l2 import l2
from reconverge.policy.methods.mas import mas
from reconverge.policy.methods.meta_learning import ftml, vr_mcl
from reconverge.policy.methods.replay import replay
from reconverge.policy.methods.si import si
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.normalizer import Normalizer
from reconverge.policy.windows import WindowTable
from reconverge.replay.generated_windows import GeneratedWindows
from reconverge.replay.source import ReplaySource
from reconverge.replay.stored_windows import StoredWindows
from reconverge.replay.teacher_rollouts import Act, TeacherRollouts
from reconverge.replay.trajectory_generator import TrajectoryGenerator
from reconverge.replay.window_code import WindowCode


@dataclass(frozen=True)
class Assembly:
    """A learner and, for methods that replay, the source it draws from."""

    learner: Learner
    source: ReplaySource | None


def assemble(config: RunConfig, tasks: list[Task], first_episodes: Sequence[Episode] = (), simulators: Simulators | None = None) -> Assembly:
    """`tasks` are the curriculum's distinct tasks. Where they declare no range, the first stage's demonstrations set the normaliser;
    without them it is a placeholder, for a checkpoint to fill. The teacher acts in `simulators` where it replays by acting."""
    device = torch.device(config.device)
    policy = make_policy(config, tasks, first_episodes).to(device)
    own = None if config.method in METHODS else load_own_method(config.method)
    replays = config.method in REPLAYING if own is None else own.replays
    source = make_source(config, tasks, device, simulators) if replays else None
    if own is None:
        method = make_method(config, source, policy.parameter_count, device)
    else:
        method = own.made(config.method, source, config.train, policy.parameter_count, device)
    return Assembly(Learner(policy, method, config.train, config.seed), source)


def make_policy(config: RunConfig, tasks: list[Task], first_episodes: Sequence[Episode]) -> DiffusionPolicy:
    first = tasks[0]
    if first.observation_centre is None and not first_episodes:
        normalizer = Normalizer(torch.zeros(first.observation_size), torch.ones(first.observation_size))
    else:
        observations = [torch.from_numpy(episode.observations).float() for episode in first_episodes]
        normalizer = Normalizer.for_task(first, torch.cat(observations) if observations else None)
    names = [task.name for task in tasks]
    return DiffusionPolicy(config.policy, names, first.observation_size, first.action_size, normalizer, config.seed, first.layout.positions)


def make_source(config: RunConfig, tasks: list[Task], device: torch.device, simulators: Simulators | None = None) -> ReplaySource:
    settings = replace(config.replay, pool=t_dgr.POOL) if config.method == "t-dgr" else config.replay
    if settings.source == "stored":
        return StoredWindows(settings)
    if settings.source == "teacher-rollouts":

        def windows_of(episodes: Sequence[Episode], task: Task) -> WindowTable:
            return make_windows(episodes, task, tasks.index(task), config.policy)

        return TeacherRollouts(settings, tasks, config.demonstrations.hold_steps, _actor(simulators), windows_of)
    code = WindowCode(tasks[0].layout, config.policy.window)
    generator = TrajectoryGenerator(settings.generator, code, len(tasks), config.seed)
    return GeneratedWindows(settings, generator.to(device))


def _actor(simulators: Simulators | None) -> Act:
    def act(policy: DiffusionPolicy, starts: Sequence[EpisodeStart]) -> list[Episode]:
        assert simulators is not None, "a teacher that acts needs simulators"
        return rollout(policy, starts, simulators, trace=True).require_all().traces

    return act


def make_method(config: RunConfig, source: ReplaySource | None, parameters: int, device: torch.device) -> Method:
    """A method of this package."""
    train = config.train
    if source is None:
        match config.method:
            case "finetune":
                return finetune()
            case "joint":
                return joint()
            case "single":
                return single()
            case "ewc":
                return ewc(train.trust_region, parameters, device)
            case "l2":
                return l2(train.l2, parameters, device)
            case "mas":
                return mas(train.mas, parameters, device)
            case "si":
                return si(train.si, parameters, device)
            case "adaptive":
                return adaptive(train)
    else:
        match config.method:
            case "replay":
                return replay(source, train)
            case "trust-region":
                return trust_region(source, train, parameters, device)
            case "ftml":
                return ftml(source, train)
            case "vr-mcl":
                return vr_mcl(source, train)
            case "t-dgr":
                return t_dgr.t_dgr(source)
            case "adaptive-trust-region":
                return adaptive_trust_region(source, train, parameters, device)
    raise AssertionError(f"method {config.method} is not assembled")


def make_windows(episodes: Sequence[Episode], task: Task, label: int, config: PolicyConfig) -> WindowTable:
    """The windows of episodes of a task, labelled with its index in the policy."""
    return WindowTable.from_episodes(
        episodes,
        label,
        window=config.window,
        horizon=config.horizon,
        past_actions=config.past_actions,
        episode_horizon=task.horizon,
    )
