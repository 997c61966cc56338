"""Evaluation: episodes per hour of a policy, ours in lock-step against one environment and one sample at a time.

    ours      `rollout`: all episodes of all tasks as one batch through the sampler, simulators in worker processes
    theirs    as lerobot and diffusion_policy evaluate with one environment: metaworld 3.1.1's own environment is reset with the
              episode's seed; a chunk is sampled with batch 1 through a plain diffusers loop and executed; and so on to the horizon

Same weights, same episode seeds, same noise, same denoising steps, whole horizons. Batching changes the last bits of an action, and
a simulator amplifies them: the gate asks for the same success flags of every episode and states the difference of the first chunk.
It plays every episode on a stock environment of its own, because a stock reset leaves traces of the episode before; what is timed
uses one environment again and again, as such loops do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import plain_diffusers
from benchmarks.harness import Bench, Equality, Peer, Side, close, identical
from benchmarks.policies import last_checkpoint, quickly_trained, untrained
from benchmarks.stock_metaworld import StockEnv, make_stock, reset_stock
from reconverge.envs.simulators import EpisodeStart, Simulators
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.eval.config import EvaluationConfig
from reconverge.eval.rollout import evaluation_starts, rollout
from reconverge.policy.config import PolicyConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import torch_stream

EASY = ("faucet-close-v3", "handle-press-side-v3", "window-close-v3")
"""Tasks of which a policy solves some episodes after a few seconds of training."""
FIRST_CHUNK_BOUND = 1e-4


def run(bench: Bench) -> None:
    policy = _policy(bench)
    tasks = [find_task(name) for name in policy.tasks]
    checked = evaluation_starts(tasks, max(1, bench.pick(30, 6, 1) // len(tasks)))
    many = evaluation_starts(tasks, bench.pick(50, 10, 1))
    few, env = many[: bench.pick(2, 1, 1)], make_stock(tasks[0].name)  # the first are all of one task
    scheduler = plain_diffusers.scheduler_of(policy)
    workers = bench.pick(EvaluationConfig().workers, EvaluationConfig().workers, 0)
    with Simulators(workers) as simulators:
        bench.compare(
            f"evaluation of {len(tasks)} tasks, {len(many)} episodes, {workers} simulator processes",
            Peer.recreated("one environment, batch 1, one process, lerobot and diffusion_policy style", "metaworld"),
            lambda: _same_outcomes(policy, checked, simulators),
            Side(lambda: _in_lock_step(policy, many, simulators), items=len(many)),
            Side(lambda: [play_alone(policy, scheduler, start, env) for start in few], items=len(few)),
            unit="episodes/h",
            kind="same maths",
            share=5.0,
        )


def _policy(bench: Bench) -> DiffusionPolicy:
    if bench.run is not None:
        return last_checkpoint(bench.run)
    if bench.size == "tiny":
        return untrained(PolicyConfig(sampling_steps=2), EASY[:1]).clone()
    bench.show("training a policy for a few seconds (--run RUN takes a checkpoint instead)")
    return quickly_trained([find_task(name) for name in EASY], episodes=bench.pick(40, 10, 1), updates=bench.pick(600, 150, 1))


def _in_lock_step(policy: DiffusionPolicy, starts: Sequence[EpisodeStart], simulators: Simulators) -> list[bool]:
    """Ours: whether each episode succeeded."""
    return [result.success_any for result in rollout(policy, starts, simulators).results]


def play_alone(policy: DiffusionPolicy, scheduler: Any, start: EpisodeStart, env: StockEnv) -> bool:
    """Theirs: one episode in one environment; whether it succeeded."""
    config, task = policy.config, start.task
    label = torch.tensor([policy.task_index(task)])
    observations, success = [reset_stock(env, start.seed)] * config.window, False
    for chunk in range(math.ceil(task.horizon / config.executed)):
        seen = torch.from_numpy(np.stack(observations[-config.window :])[None]).float()
        noise = noise_of(policy, start, chunk)
        actions = policy.executed(plain_diffusers.sample_chunk(policy, scheduler, seen, label, noise))[0].numpy()
        for action in actions[: task.horizon - chunk * config.executed]:
            observation, _, _, _, info = env.step(action.astype(np.float64))
            observations.append(observation)
            success = success or bool(info["success"])
    return success


def noise_of(policy: DiffusionPolicy, start: EpisodeStart, chunk: int) -> torch.Tensor:
    """What `rollout` denoises in this chunk of the episode, (1, H, Da)."""
    stream = torch_stream("evaluation noise", start.task.name, start.seed, chunk)
    return policy.config.temperature * torch.randn(1, policy.config.horizon, policy.action_size, generator=stream)


def _same_outcomes(policy: DiffusionPolicy, starts: Sequence[EpisodeStart], simulators: Simulators) -> Equality:
    ours = _in_lock_step(policy, starts, simulators)
    theirs = [play_alone(policy, plain_diffusers.scheduler_of(policy), start, make_stock(start.task.name)) for start in starts]
    equality = identical(f"success of {len(starts)} episodes", ours, theirs) & Equality(f"{sum(theirs)} succeeded")
    return equality & close("actions of the first chunk", *_first_chunks(policy, starts), FIRST_CHUNK_BOUND)


def _first_chunks(policy: DiffusionPolicy, starts: Sequence[EpisodeStart]) -> tuple[torch.Tensor, torch.Tensor]:
    """All first chunks sampled as one batch, and one by one."""
    scheduler = plain_diffusers.scheduler_of(policy)
    seen = torch.stack([_first_window(policy, start.task, start.seed) for start in starts])
    labels = torch.tensor([policy.task_index(start.task) for start in starts])
    streams = [torch_stream("evaluation noise", start.task.name, start.seed, 0) for start in starts]
    alone = [
        plain_diffusers.sample_chunk(policy, scheduler, seen[row : row + 1], labels[row : row + 1], noise_of(policy, start, 0))
        for row, start in enumerate(starts)
    ]
    return policy.sample_chunk(seen, labels, streams), torch.cat(alone)


def _first_window(policy: DiffusionPolicy, task: Task, seed: int) -> torch.Tensor:
    observation = reset_stock(make_stock(task.name), seed)
    return torch.from_numpy(np.repeat(observation[None], policy.config.window, axis=0)).float()
