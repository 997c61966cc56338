"""The generative trajectory replayer: a diffusion model over observation windows, given the task and the time.

Conditioned on the start time, one batch over all times covers whole trajectories without an autoregressive
roll-out, hence without drift along a trajectory (the idea of t-DGR). What is generated is the window's
code (see `window_code`), with places relative to each other (see `relative_places`) where the configuration asks for it, standardised per
task: a number that never varies in a task has spread zero and comes out exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

from reconverge.envs.errors import TrainingDiverged
from reconverge.envs.seeding import Word
from reconverge.policy.config import OptimizerConfig, ResidualMLPConfig
from reconverge.policy.denoiser import ResidualMLP, sinusoidal_features
from reconverge.policy.diffusion import Diffusion
from reconverge.policy.diffusion_policy import arrays_of
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.matrix_products import large_products
from reconverge.policy.more_tasks import grown
from reconverge.policy.optimizer import StageOptimizer
from reconverge.policy.random_streams import RandomStreams, seeded_initialisation, torch_stream
from reconverge.policy.saved_arrays import fill
from reconverge.replay.config import GeneratorConfig
from reconverge.replay.relative_places import to_absolute, to_relative
from reconverge.replay.window_code import WindowCode

CLIP = 6.0  # standard deviations: generated numbers stay within what a task has shown, give or take
TIME_FEATURES = 16
TIME_QUANTILES = 65  # the distribution of start times is kept as quantiles
EMA_DECAY = 0.995
SMALLEST_SPREAD = 1e-6


class TrajectoryGenerator(nn.Module):
    """Generates windows of the tasks that it has learned.

    Attributes:
        mean, spread: (T, size) of each task's numbers, that is of its code, with places relative to each other where `touch_scale_m` asks for
            it (see `relative_places`); spread is 0 where a number never varies.
        lowest, highest: (T, size) of each task's code, with relative places alone: what is generated stays between them.
        time_quantiles: (T, 65) of each task's start times, in [0, 1].
    """

    mean: Tensor
    spread: Tensor
    time_quantiles: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, config: GeneratorConfig, code: WindowCode, tasks: int, seed: int) -> None:
        super().__init__()
        self.config, self.code, self.tasks = config, code, tasks
        with seeded_initialisation("initial generator weights", seed):
            self.denoiser = ResidualMLP(ResidualMLPConfig(config.width, config.blocks), code.size, tasks + TIME_FEATURES)
        self.diffusion = Diffusion(config.timesteps, "ddim", config.sampling_steps, CLIP, target="velocity")
        self.register_buffer("mean", torch.zeros(tasks, code.size))
        self.register_buffer("spread", torch.zeros(tasks, code.size))
        self.register_buffer("time_quantiles", torch.zeros(tasks, TIME_QUANTILES))
        self.is_relative = config.touch_scale_m > 0 and len(code.places) > 1
        if self.is_relative:
            self.register_buffer("lowest", torch.zeros(tasks, code.size))
            self.register_buffer("highest", torch.zeros(tasks, code.size))

    @large_products()
    @torch.no_grad()
    def generate(self, task: int, count: int, *words: Word) -> tuple[Tensor, Tensor]:
        """`count` windows of one task: observations (count, To, Do) in the task's units, and their times (count,).

        What is drawn is a function of the task and the `words`.
        """
        device = self.mean.device
        spread = torch.rand(count, generator=torch_stream("generated times", task, *words))
        ranks = (torch.arange(count) + spread) / count  # stratified: every time is covered
        times = _interpolate(self.time_quantiles[task].cpu(), ranks).to(device)
        prepared = self.denoiser.embed_condition(self._condition(torch.full((count,), task, device=device), times))
        streams = [torch_stream("generated window", task, window, *words) for window in range(count)]
        standardised = self.diffusion.sample(
            lambda noisy, timestep: self.denoiser.denoise(noisy, timestep, prepared), (self.code.size,), streams, device
        )
        return self._observations(task, self.mean[task] + self.spread[task] * standardised), times

    @large_products()
    def learn(
        self,
        task: int,
        observations: Tensor,
        times: Tensor,
        earlier: Sequence[tuple[int, Tensor, Tensor]],
        streams: RandomStreams,
        tick: Callable[[int], None] = lambda updates: None,
    ) -> None:
        """Learn `task` from its windows (W, To, Do) at `times` (W,), and keep the earlier tasks.

        `earlier` holds (task, observations, times) of generated windows of the k - 1 tasks learned before. Of every batch 1/k, rounded down
        and at least one window, is of `task`, the rest of the others, so that every task has the same weight but for the rounding (192
        windows and ten tasks: 19 of this one, 19.2 of each other). Raises TrainingDiverged where the weights are not finite in the end.
        """
        self._measure(task, observations, times)
        pools = [self._standardise(task, observations, times)]
        if earlier:
            parts = [self._standardise(*pool) for pool in earlier]
            pools.append((torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])))

        current = max(1, self.config.batch_size // (1 + len(earlier)))
        counts = [current, self.config.batch_size - current][: len(pools)]
        parameters = FlatParameters(self.denoiser)
        averaged = parameters.values.clone()
        optimizer = StageOptimizer(parameters, OptimizerConfig(learning_rate=self.config.learning_rate), self.config.updates)
        for update in range(1, self.config.updates + 1):
            clean, condition = _draw(pools, counts, streams.generator("generator windows", update))
            timestep, noise = self.diffusion.draw(tuple(clean.shape), streams.generator("generator noise", update))
            timestep, noise = timestep.to(clean.device), noise.to(clean.device)
            predicted = self.denoiser(self.diffusion.add_noise(clean, noise, timestep), timestep, condition)
            parameters.gradient.zero_()
            mse_loss(predicted, self.diffusion.velocity(clean, noise, timestep)).backward()
            optimizer.step()
            averaged.lerp_(parameters.values, 1 - min(EMA_DECAY, update / (update + 10)))  # the first updates are not remembered
            tick(1)
        if not bool(averaged.isfinite().all()):
            raise TrainingDiverged(f"the generator's weights are not finite after learning task {task} in stage {streams.stage}")
        parameters.values.copy_(averaged)

    def _measure(self, task: int, observations: Tensor, times: Tensor) -> None:
        numbers = self._numbers(observations)
        spread = numbers.std(0) if len(numbers) > 1 else torch.zeros_like(numbers[0])
        self.mean[task] = numbers.mean(0)
        if self.is_relative:
            self.lowest[task], self.highest[task] = self.code.encode(observations).aminmax(dim=0)
        self.spread[task] = torch.where(spread > SMALLEST_SPREAD, spread, 0.0)
        self.time_quantiles[task] = torch.quantile(times.float(), torch.linspace(0, 1, TIME_QUANTILES, device=times.device))

    def _standardise(self, task: int, observations: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        deviation = self._numbers(observations) - self.mean[task]
        spread = self.spread[task]
        standardised = torch.where(spread > 0, deviation / spread.clamp_min(SMALLEST_SPREAD), 0.0).clamp(-CLIP, CLIP)
        return standardised, self._condition(torch.full((len(times),), task, device=times.device), times)

    def _numbers(self, observations: Tensor) -> Tensor:
        """(B, To, Do) -> (B, size): what is generated."""
        code = self.code.encode(observations)
        return to_relative(code, self.code.places, self.config.touch_scale_m) if self.is_relative else code

    def _observations(self, task: int, numbers: Tensor) -> Tensor:
        """The windows of these numbers. Relative places may lead anywhere: the code stays within what the task has shown."""
        if self.is_relative:
            code = to_absolute(numbers, self.code.places, self.config.touch_scale_m)
            numbers = code.clamp(self.lowest[task], self.highest[task])
        return self.code.decode(numbers)

    def _condition(self, task: Tensor, times: Tensor) -> Tensor:
        label = one_hot(task, self.tasks).float()
        return torch.cat([label, sinusoidal_features(100 * times, TIME_FEATURES)], dim=-1)

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state_dict().values())

    def arrays(self) -> dict[str, np.ndarray]:
        return arrays_of(self.state_dict())

    def arrays_knowing(self, tasks: int) -> dict[str, np.ndarray]:
        """`arrays` of a generator of so many `tasks`, which begin with this one's, and of which it has learned what this one has."""
        wide = TrajectoryGenerator(self.config, self.code, tasks, seed=0).state_dict()
        behind = {"denoiser.read.weight": TIME_FEATURES}  # the label is told ahead of the time
        return {name: grown(array, tuple(wide[name].shape), behind.get(name, 0)) for name, array in self.arrays().items()}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Take the weights that `arrays` gave. Raises DamagedFile, before any changes, for those of another generator."""
        fill(self, arrays, "source.safetensors")


def _draw(pools: list[tuple[Tensor, Tensor]], counts: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(sum of counts, code) windows and their conditions: so many of each pool."""
    drawn = zip(pools, counts, strict=True)
    indices = [torch.randint(len(clean), (count,), generator=generator).to(clean.device) for (clean, _), count in drawn]
    clean = torch.cat([pool[0][index] for pool, index in zip(pools, indices, strict=True)])
    condition = torch.cat([pool[1][index] for pool, index in zip(pools, indices, strict=True)])
    return clean, condition


def _interpolate(quantiles: Tensor, ranks: Tensor) -> Tensor:
    position = ranks * (len(quantiles) - 1)
    left = position.long().clamp_max(len(quantiles) - 2)
    return torch.lerp(quantiles[left], quantiles[left + 1], position - left)
