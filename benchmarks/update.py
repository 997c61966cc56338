"""A training update: the loop of lerobot and diffusion_policy around the same network against `Learner.update`.

lerobot 0.6.1 wants torch < 2.12 and gymnasium < 1.4 beside Python 3.12 and cannot be installed beside this project's pins;
diffusion_policy is not on PyPI. Their loop is re-created from their published descriptions in dictionary_training.py.

Two comparisons are about ourselves: an update in bfloat16 against float32, and, in a table of its own, update_tasks.csv, an update
with the trust region around K earlier tasks against the same update with replay alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.dictionary_training import DictionaryTrainer, EpisodeWindows, dictionary, endless_batches
from benchmarks.harness import Bench, Equality, GateFailed, Peer, Side, circumstances, close, identical, relatively_close
from benchmarks.policies import random_windows, untrained
from reconverge.envs.episodes import Episode
from reconverge.policy.config import OptimizerConfig, PolicyConfig, TrainConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import Rank1Fisher
from reconverge.policy.hooks import Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.bounds import finetune
from reconverge.policy.methods.ewc import Rank1Penalty
from reconverge.policy.methods.replay import replay
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.trust_region import TrustRegion
from reconverge.policy.windows import WindowBatch, WindowTable
from reconverge.replay.source import WindowPools

CONFIG = PolicyConfig()
TRAIN = TrainConfig(optimizer=OptimizerConfig(schedule="constant"))
LOSS_BOUND, STEP_BOUND = 1e-5, 1e-3
"""Of the loss, and of the norm of one step of AdamW: it divides each gradient by its own size, so that round-off in the smallest shows."""
ROUNDED_BOUND = 0.05
EPISODES, STEPS = 100, 100
WINDOWS_PER_TASK = 4096
EARLIER_TASKS = (0, 1, 9, 20, 50)
MANY = 10_000_000
"""Updates of a stage that does not end while it is measured."""
CURVE = ("earlier_tasks", "replay_ms", "trust_region_ms", "overhead_percent", "overhead_low", "overhead_high", "blocks", "equality")


def run(bench: Bench) -> None:
    train = replace(TRAIN, batch_size=bench.pick(256, 256, 16))
    for replayed in (False, True):
        _compare(bench, train, replayed, loader_processes=0)
    if bench.size != "tiny":
        _compare(bench, train, replayed=True, loader_processes=1)
    _compare_precisions(bench, train)
    bench.tables["update_tasks"] = [_curve_point(bench, train, earlier) for earlier in bench.pick(EARLIER_TASKS, EARLIER_TASKS, (0, 2))]


# Against the usual loop --------------------------------------------------------------------------------------------------------


def _compare(bench: Bench, train: TrainConfig, replayed: bool, loader_processes: int) -> None:
    where = f"loaders in {loader_processes} process(es) of their own" if loader_processes else "loaders in the same process"
    learner = _learner(train, earlier=1 if replayed else 0)
    trainer = _trainer(train, teacher=learner.teacher)
    episodes = bench.pick(EPISODES, EPISODES, 2)
    loaders = [endless_batches(_dataset(task, episodes), train.batch_size, loader_processes) for task in range(1 + replayed)]
    bench.compare(
        f"update, batch {train.batch_size}{f' + {train.batch_size} replayed with a teacher' if replayed else ''}",
        Peer.recreated(f"lerobot and diffusion_policy loop, {where}", "diffusers"),
        lambda: _same_update(train, replayed),
        Side(learner.update),
        Side(lambda: trainer.update(*map(next, loaders))),
        unit="ms",
        kind="same maths",
    )


def _compare_precisions(bench: Bench, train: TrainConfig) -> None:
    exact, rounded = (_learner(replace(train, precision=precision), earlier=1) for precision in ("float32", "bfloat16"))
    bench.compare(
        f"update in bfloat16, batch {train.batch_size} + {train.batch_size} replayed with a teacher",
        Peer.of("torch", "the same in float32"),
        lambda: _same_gradient(rounded, exact),
        Side(rounded.update),
        Side(exact.update),
        unit="ms",
        kind="lower precision",
    )


def _learner(train: TrainConfig, earlier: int, method: Method | None = None, tasks: int = 2) -> Learner:
    """A learner in its stage after `earlier` tasks; its windows are those of task `earlier`."""
    policy = untrained(CONFIG, [f"task-{number}" for number in range(tasks)])
    learner = Learner(policy, method or (replay(_pools(earlier), train) if earlier else finetune()), train, seed=0)
    learner.teacher = _teacher(tasks) if earlier else None
    learner.begin_stage(earlier + 1, Witness.of(random_windows(CONFIG, EPISODES * STEPS, earlier)), MANY)
    return learner


def _trainer(train: TrainConfig, teacher: DiffusionPolicy | None) -> DictionaryTrainer:
    return DictionaryTrainer(untrained(CONFIG, ("task-0", "task-1")), train.optimizer, train.replay_weight, teacher)


def _teacher(tasks: int) -> DiffusionPolicy:
    """Another policy than the one that is trained."""
    teacher = untrained(CONFIG, [f"task-{number}" for number in range(tasks)]).clone()
    with torch.no_grad():
        for parameter in teacher.denoiser.parameters():
            parameter.mul_(0.9)
    return teacher


def _pools(tasks: int) -> WitnessPools:
    pools = WitnessPools()
    pools.put({task: random_windows(CONFIG, WINDOWS_PER_TASK, task, seed=task + 1) for task in range(tasks)})
    return pools


def _dataset(task: int, episodes: int) -> EpisodeWindows:
    made = [_episode(number) for number in range(episodes)]
    pairs = [(torch.from_numpy(episode.observations), torch.from_numpy(episode.actions)) for episode in made]
    return EpisodeWindows(pairs, task, CONFIG.window, CONFIG.horizon)


def _episode(seed: int) -> Episode:
    observations = random_windows(replace(CONFIG, window=1), STEPS + 1, 0, seed).all().observations[:, 0].numpy()
    actions = np.random.default_rng(seed).uniform(-1, 1, (STEPS, 4)).astype(np.float32)
    return Episode("task", seed, observations, actions, np.zeros(STEPS, bool))


# Equality ----------------------------------------------------------------------------------------------------------------------


class Witness(WindowTable):
    """A table that remembers what was drawn from it."""

    drawn: WindowBatch | None = None

    @classmethod
    def of(cls, table: WindowTable) -> Witness:
        return cls(table.all(), table.times)

    def to(self, device: torch.device) -> Witness:
        return self

    def draw(self, count: int, generator: torch.Generator) -> WindowBatch:
        self.drawn = super().draw(count, generator)
        return self.drawn


class WitnessPools(WindowPools):
    """Pools that remember what was drawn from them."""

    drawn: WindowBatch | None = None

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch | None:
        self.drawn = super().draw(count, generator, without)
        return self.drawn


def _same_update(train: TrainConfig, replayed: bool) -> Equality:
    """One update from the same weights on the same windows, timesteps and noise, which the learner is watched drawing."""
    pools = _pools(1)
    learner = _learner(train, earlier=int(replayed), method=replay(pools, train) if replayed else None)
    trainer = _trainer(train, learner.teacher)
    before = learner.parameters.values.clone()
    draws = _watched_draws(learner.policy)
    figures = learner.update()

    windows = [witness.drawn for witness in (learner.windows, pools) if isinstance(witness, Witness | WitnessPools)][: 1 + replayed]
    seen = [batch for batch in windows if batch is not None]
    if len(draws) != 1 or len(seen) != 1 + replayed:
        raise GateFailed(
            f"Learner.update drew noise {len(draws)} times and {len(seen)} batches where this gate can watch; it expects 1 and {1 + replayed}"
        )
    new = len(seen[0])
    timestep, noise = draws[0]
    batches = [dictionary(batch) for batch in seen]
    trainer.update_with_noise(batches[0], batches[1] if replayed else None, [(timestep[:new], noise[:new]), (timestep[new:], noise[new:])])

    loss, replay_loss = trainer.last
    equality = close("loss", figures.loss, loss, LOSS_BOUND)
    if replay_loss is not None:
        equality = equality & close("replay loss", figures.replay_loss, replay_loss, LOSS_BOUND)
    after = torch.cat([parameter.detach().reshape(-1) for parameter in trainer.parameters])
    average = torch.cat([parameter.reshape(-1) for parameter in trainer.average.shadow_params])
    equality = equality & relatively_close("step of the parameters", learner.parameters.values - before, after - before, STEP_BOUND)
    return equality & relatively_close("step of their average", learner.averaged - before, average - before, STEP_BOUND)


def _same_gradient(rounded: Learner, exact: Learner) -> Equality:
    """The first update's, before anything else differs."""
    for learner in (rounded, exact):
        learner.update()
    return relatively_close("gradient", rounded.parameters.gradient, exact.parameters.gradient, ROUNDED_BOUND)


def _watched_draws(policy: DiffusionPolicy) -> list[tuple[Tensor, Tensor]]:
    """The list into which every later (timesteps, noise) of the policy's diffusion goes."""
    seen: list[tuple[Tensor, Tensor]] = []
    draw = policy.diffusion.draw

    def watched(shape: tuple[int, ...], generator: torch.Generator, band: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        seen.append(draw(shape, generator, band))
        return seen[-1]

    policy.diffusion.draw = watched  # type: ignore[method-assign]
    return seen


# The trust region's share ------------------------------------------------------------------------------------------------------


def _curve_point(bench: Bench, train: TrainConfig, earlier: int) -> dict[str, object]:
    """One line of update_tasks.csv."""
    name = f"update after {earlier} earlier tasks, trust region against replay alone"
    ours, theirs, region = _protected_and_rehearsing(train, earlier)
    equality = bench.gate(name, lambda: _same_without_strength(ours, theirs, region))
    timing = bench.measure(Side(ours.update), Side(theirs.update), share=0.75)
    low, middle, high = (100 * (1 / ratio - 1) for ratio in timing.interval[::-1])
    with_ms, without_ms = (1e3 * float(np.median(side)) for side in (timing.ours, timing.theirs))
    bench.show(f"{name}: {with_ms:.2f} ms against {without_ms:.2f} ms, {middle:+.1f} % ({low:+.1f} to {high:+.1f})")
    values = (earlier, without_ms, with_ms, middle, low, high, len(timing.ratios), equality.words)
    return dict(zip(CURVE, values, strict=True)) | circumstances()


def _protected_and_rehearsing(train: TrainConfig, earlier: int) -> tuple[Learner, Learner, TrustRegion]:
    """A learner with replay and the trust region, one with replay alone, and that region, around made-up optima."""
    tasks = max(EARLIER_TASKS) + 1
    theirs = _learner(train, earlier, replay(_pools(earlier), train), tasks)
    method = trust_region(_pools(earlier), train, len(theirs.parameters))
    ours = _learner(train, earlier, method, tasks)
    (region,) = (hook.region for hook in method.hooks if isinstance(hook, Rank1Penalty))
    for mu, optimum in made_up_optima(ours.parameters.values, earlier):
        region.add(Rank1Fisher(mu, 1.0, 2, 0.0, 0.0, 0.0), optimum)
    return ours, theirs, region


def made_up_optima(theta: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(mean gradient (P,) of length 1, optimum (P,) close to theta) of `count` tasks."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        mu = torch.randn(len(theta), generator=generator)
        yield mu / mu.norm(), theta + 0.01 * torch.randn(len(theta), generator=generator)


def _same_without_strength(ours: Learner, theirs: Learner, region: TrustRegion) -> Equality:
    """With lambda = 0 both methods are the same: three updates give the same parameters."""
    region.strength, strength = 0.0, region.strength
    for learner in (ours, theirs):
        for _ in range(3):
            learner.update()
    region.strength = strength
    return identical("with lambda = 0 the parameters after three updates are", ours.parameters.values, theirs.parameters.values)
