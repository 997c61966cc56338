"""Replay: windows of earlier tasks beside the current ones, distilled from the frozen teacher.

Every earlier task is rehearsed alike, but for the share rho of the windows (`train.replay_priority`), which goes to the tasks with the
largest replay losses: with distillation, those where the network has drifted most from its teacher. Task i of K is drawn with probability

    p_i = (1 - rho) / K + rho L_i / sum_j L_j            L_i: replay loss on windows of task i alone

Worked example, K = 2, rho = 0.5, losses 0.03 and 0.01: p = 0.25 + 0.5 * 0.75 = 0.625 and 0.375. Prioritised replay (Schaul et al. 2016,
arXiv 1511.05952) ranks transitions by their error and takes the bias out by importance weights. Ranking tasks (ours) needs one loss per
task instead of one per window, and the bias is meant: the replay loss becomes sum_i p_i L_i.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.config import TrainConfig, Weighting
from reconverge.policy.hooks import Hook, Method
from reconverge.policy.learner import Learner
from reconverge.policy.saved_arrays import take
from reconverge.policy.windows import WindowBatch

MEASURED_EVERY = 25  # updates; at a switch tasks drift within tens of them
MEASURED_ON = 64  # windows of each task


class WindowSource(Protocol):
    """Anything that can draw windows of earlier tasks."""

    @property
    def tasks(self) -> Collection[int]:
        """The tasks of which it has windows, by their index in the policy."""

    def draw(self, count: int, generator: torch.Generator, without: Collection[int] = ()) -> WindowBatch | None:
        """Exactly `count` (>= 1) windows, drawn with replacement: of every task in equal shares but those in `without`, however many it has.

        None where that leaves no task, as in the first stage. `without` holds indices as `tasks` does; one of which there are no windows
        changes nothing. All that is drawn comes from `generator`, a CPU one; the windows lie on the policy's device.
        """


def draw_of(source: WindowSource, task: int, count: int, generator: torch.Generator) -> WindowBatch:
    """`count` windows of one of the source's tasks."""
    batch = source.draw(count, generator, without=[other for other in source.tasks if other != task])
    assert batch is not None  # the source says that it has windows of the task
    return batch


class Rehearse(Hook):
    """Rehearse the earlier tasks with windows from `source`.

    A task that is learned again is not rehearsed meanwhile: its demonstrations are there, and its old teacher is not to hold it back.

    Attributes:
        shares: task -> probability of a replayed window, where there is a priority; empty until the first measurement in a stage.
    """

    name = "rehearse"

    def __init__(self, source: WindowSource, weighting: Weighting = "fixed", priority: float = 0.0) -> None:
        self.source, self.weighting, self.priority = source, weighting, priority
        self.shares: dict[int, float] = {}
        self.names: tuple[str, ...] = ()

    def on_stage_start(self, learner: Learner) -> None:
        self.shares, self.names = {}, learner.policy.tasks
        earlier = set(self.source.tasks) - learner.current_tasks
        if self.weighting == "tasks-seen" and earlier and learner.config.replayed:
            learner.loss_weights = weights_by_tasks_seen(len(earlier | learner.current_tasks))

    def replay_batch(self, learner: Learner, count: int, generator: torch.Generator) -> WindowBatch | None:
        done = learner.update_index - 1
        if self.priority > 0 and done > 0 and done % MEASURED_EVERY == 0:
            self._measure_shares(learner)
        if not self.shares:
            return self.source.draw(count, generator, without=learner.current_tasks)
        chosen = torch.multinomial(torch.tensor(list(self.shares.values())), count, replacement=True, generator=generator)
        counts = chosen.bincount(minlength=len(self.shares)).tolist()
        drawn = [draw_of(self.source, task, of_task, generator) for task, of_task in zip(self.shares, counts, strict=True) if of_task]
        return WindowBatch.concatenate(drawn)

    def _measure_shares(self, learner: Learner) -> None:
        if rehearsed := sorted(set(self.source.tasks) - learner.current_tasks):
            losses = torch.stack([self._replay_loss(learner, task) for task in rehearsed]).cpu()
            if losses.isfinite().all():  # else it is the update that says so
                self.shares = dict(zip(rehearsed, shares_of(losses, self.priority).tolist(), strict=True))

    @torch.no_grad()
    def _replay_loss(self, learner: Learner, task: int) -> Tensor:
        """(): at the present parameters, on windows of one task."""
        batch = draw_of(self.source, task, MEASURED_ON, learner.stream(f"priority windows {task}"))
        losses = learner.losses(None, batch, learner.stream(f"priority noise {task}"))
        loss = learner.of_all_rows(losses).replay
        assert loss is not None  # there are windows
        return loss

    def figures(self) -> dict[str, float]:
        return {f"replay_share.{self.names[task]}": share for task, share in self.shares.items()}

    def underway(self) -> dict[str, np.ndarray]:
        if not self.shares:
            return {}
        return {"tasks": np.array(list(self.shares), np.float64), "shares": np.array(list(self.shares.values()), np.float64)}

    def load_underway(self, learner: Learner, arrays: dict[str, np.ndarray]) -> None:
        if arrays:
            tasks = take(arrays, "tasks", (None,), "underway.safetensors").long().tolist()
            self.shares = dict(zip(tasks, take(arrays, "shares", (len(tasks),), "underway.safetensors").tolist(), strict=True))


def weights_by_tasks_seen(seen: int) -> tuple[float, float]:
    """Of the current loss and of the replay loss, where every one of the tasks seen, this one included, counts the same."""
    return 1 / seen, (seen - 1) / seen


def shares_of(losses: Tensor, priority: float) -> Tensor:
    """(K,) probability of each task from the replay losses (K,); equal ones where no task has drifted."""
    equal = torch.full_like(losses, 1 / len(losses))
    total = losses.sum()
    return equal if total == 0 else (1 - priority) * equal + priority * losses / total


def replay(source: WindowSource, config: TrainConfig) -> Method:
    """Generative distillation alone (the `replay` row of arXiv 2602.02417, table 1)."""
    return Method("replay", (Rehearse(source, config.weighting, config.replay_priority),))
