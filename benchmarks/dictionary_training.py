"""The training loop of lerobot and diffusion_policy, written anew from their published descriptions.

    data         a map-style dataset of windows cut from episodes, a torch DataLoader that shuffles and collates dictionaries
    replay       a second loader, a second forward pass; the targets come from the frozen teacher
    step         backward, clip_grad_norm_ over the parameters, AdamW over the parameters, a learning-rate schedule
    average      diffusers' EMAModel over the parameters
    log          loss.item() at every update

No preprocessing, images or files: what is left is the part that any such loop has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from reconverge.policy.config import OptimizerConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.windows import WindowBatch

Batch = dict[str, Tensor]


class EpisodeWindows(Dataset[Batch]):
    """Windows cut on demand from whole episodes: (observations (T + 1, Do), actions (T, Da)) with the task's index."""

    def __init__(self, episodes: Sequence[tuple[Tensor, Tensor]], task: int, window: int, horizon: int) -> None:
        self.episodes, self.task = episodes, torch.tensor(task)
        self.seen, self.done = torch.arange(1 - window, 1), torch.arange(horizon)
        self.index = [(number, step) for number, (_, actions) in enumerate(episodes) for step in range(len(actions))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> Batch:
        number, step = self.index[item]
        observations, actions = self.episodes[number]
        seen, done = (step + self.seen).clamp_min(0), (step + self.done).clamp_max(len(actions) - 1)
        return {"observation": observations[seen], "action": actions[done], "task": self.task}


def endless_batches(dataset: Dataset[Batch], batch_size: int, workers: int) -> Iterator[Batch]:
    """Epoch after epoch of shuffled batches."""
    loader: Any = DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context="fork" if workers else None,
    )
    while True:
        yield from loader


class DictionaryTrainer:
    """Updates a policy from dictionary batches. `last` holds the loss and the replay loss of the last update."""

    def __init__(self, policy: DiffusionPolicy, config: OptimizerConfig, replay_weight: float, teacher: DiffusionPolicy | None) -> None:
        self.policy, self.teacher, self.config, self.replay_weight = policy, teacher, config, replay_weight
        self.parameters = list(policy.denoiser.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda update: 1.0)
        self.average = EMAModel(self.parameters, decay=policy.config.ema_decay, min_decay=policy.config.ema_decay)
        self.average.optimization_step = 1  # at its very first step diffusers copies the parameters instead of averaging them
        self.last: tuple[float, float | None] = (0.0, None)

    def update(self, current: Batch, replayed: Batch | None = None) -> None:
        self.update_with_noise(current, replayed, [self._draw(batch) for batch in (current, replayed) if batch is not None])

    def update_with_noise(self, current: Batch, replayed: Batch | None, draws: Sequence[tuple[Tensor, Tensor]]) -> None:
        """`draws` holds (timestep, noise) of the current batch and of the replayed one."""
        loss = total = self._loss(current, *draws[0], teacher=None)
        replay_loss = None
        if replayed is not None:
            replay_loss = self._loss(replayed, *draws[1], teacher=self.teacher)
            total = loss + self.replay_weight * replay_loss
        self.optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_gradient_norm)
        self.optimizer.step()
        self.schedule.step()
        self.average.step(self.parameters)
        self.last = loss.item(), None if replay_loss is None else replay_loss.item()

    def _loss(self, batch: Batch, timestep: Tensor, noise: Tensor, teacher: DiffusionPolicy | None) -> Tensor:
        noisy = self.policy.diffusion.add_noise(batch["action"], noise, timestep)
        condition = self.policy.condition(batch["observation"], batch["task"])
        predicted = self.policy.denoiser(noisy, timestep, condition)
        if teacher is None:
            return mse_loss(predicted, noise)
        with torch.no_grad():
            target = teacher.denoiser(noisy, timestep, condition)
        return mse_loss(predicted, target)

    def _draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        actions = batch["action"]
        return torch.randint(self.policy.config.timesteps, (len(actions),)), torch.randn_like(actions)


def dictionary(batch: WindowBatch) -> Batch:
    return {"observation": batch.observations, "action": batch.actions, "task": batch.task}
