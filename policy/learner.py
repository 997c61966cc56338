"""The learner: the one place where parameters change while a stage is trained.

    objective (arXiv 2602.02417, equation 8)
        L(theta; current windows) + beta * L_replay(theta) + trust-region penalty

`Learner.update` is that equation from top to bottom. What differs between methods enters through hooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.config import TrainConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.divergence import GradientWatch, check_windows
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.hooks import Hook, Losses, Method, ReplayTarget
from reconverge.policy.matrix_products import large_products
from reconverge.policy.one_process import OneProcess
from reconverge.policy.optimizer import SecondMoment, StageOptimizer
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.saved_arrays import take
from reconverge.policy.windows import WindowBatch, WindowTable

if TYPE_CHECKING:
    from reconverge.policy.data_parallel import Ranks


@dataclass(frozen=True)
class UpdateFigures:
    """What one update did; tensors of one element stay on the device until somebody reads them."""

    loss: Tensor | None
    replay_loss: Tensor | None
    penalty: Tensor | None
    gradient_norm: Tensor
    learning_rate: float

    def row(self) -> dict[str, float | None]:
        return {
            "loss": None if self.loss is None else float(self.loss),
            "replay_loss": None if self.replay_loss is None else float(self.replay_loss),
            "penalty": None if self.penalty is None else float(self.penalty),
            "gradient_norm": float(self.gradient_norm),
            "learning_rate": self.learning_rate,
        }


class Learner:
    """Learns one stage after the other.

    Attributes:
        policy: the network in training; its parameters are `parameters.values`.
        averaged: (P,) exponential moving average of the parameters: what acts, teaches and is handed over.
        teacher: the frozen policy of the end of the previous stage; None in the first.
        second_moment: what the optimizer of the previous stage hands to the next, where it is carried over.
        ranks: the processes that share the rows of every batch, set after `begin_stage` until the stage ends.

    Within a stage, from `begin_stage` on:
        updates, update_index: how many there will be, and how many were begun.
        windows, current_tasks: what is learned, on the policy's device, and the tasks in it, by their index in the policy.
        streams, optimizer, watch: randomness of this stage, its AdamW with its schedule, and who looks for gradients that are not finite.
        loss_weights: of the current and of the replayed windows; a hook may set them.
        last_losses: of the update under way, for hooks.
    """

    def __init__(self, policy: DiffusionPolicy, method: Method, config: TrainConfig, seed: int) -> None:
        self.policy, self.method, self.config, self.seed = policy, method, config, seed
        self.parameters = FlatParameters(policy.denoiser)
        self.averaged = self.parameters.values.clone()
        self.teacher: DiffusionPolicy | None = None
        self.second_moment: SecondMoment | None = None
        self.ranks: OneProcess | Ranks = OneProcess()
        self.stage = 0

    # a stage

    def begin_stage(self, stage: int, windows: WindowTable, updates: int) -> None:
        """Start stage `stage` (1-based) on the current task's windows, for `updates` updates.

        Raises DamagedFile when a window holds a number that is not finite.
        """
        check_windows(windows, self.policy.tasks)
        self.ranks = OneProcess()
        self.stage, self.updates, self.update_index = stage, updates, 0
        self.windows = windows.to(self.policy.device)
        self.current_tasks = set(windows.all().task.unique().tolist())
        self.streams = RandomStreams(self.seed, stage)
        self.optimizer = StageOptimizer(self.parameters, self.config.optimizer, updates, self.second_moment)
        self.loss_weights = (1.0, self.config.replay_weight)
        self.watch = GradientWatch(self.policy.device)
        self._adjusting = [hook for hook in self.method.hooks if type(hook).adjust_step is not Hook.adjust_step]
        for hook in self.method.hooks:
            hook.on_stage_start(self)

    def update(self) -> UpdateFigures:
        """One gradient update of the objective.

        Raises TrainingDiverged when its gradient is not finite, before a weight changes. On a GPU, which is not waited for, the weights
        stay as they are too, but it is `check_finite` that raises.
        """
        self.update_index += 1
        self.parameters.gradient.zero_()

        # gradient of the objective: the paper's, or the method's own
        with large_products(), self._half_precision():
            own = [losses for hook in self.method.hooks if (losses := hook.objective_gradient(self)) is not None]
            losses = own[0] if own else self._objective_gradient()
        self.last_losses = losses = self.of_all_rows(losses)

        # the trust region's part in closed form, and what else the method makes of it
        penalty = self._add_penalty_gradients()
        for hook in self.method.hooks:
            hook.adjust_gradients(self)

        # step
        gradient_norm, learning_rate = self._clip_gradient(), self.optimizer.learning_rate
        finite = self.watch.see(gradient_norm, self, penalty)
        before = self.parameters.values.clone() if self._adjusting else self.parameters.values
        self.optimizer.step(finite)
        for hook in self._adjusting:
            hook.adjust_step(self, before)
        self.averaged.lerp_(self.parameters.values, 1 - self.policy.config.ema_decay)
        loss, replay_loss = (None if part is None else part.detach() for part in losses)
        return UpdateFigures(loss, replay_loss, penalty, gradient_norm, learning_rate)

    def check_finite(self) -> None:
        """Raise TrainingDiverged when the gradient of an update of this stage was not finite; waits for the device."""
        self.watch.check(self.stage)

    def log_row(self, figures: UpdateFigures) -> dict[str, float | None]:
        """Figures of the last update, with the largest norm of a gradient since this was called before; waits for the device.

        Raises TrainingDiverged as `check_finite` does.
        """
        self.check_finite()
        return {**figures.row(), "largest_gradient_norm": self.watch.take_largest(), **self.method.figures()}

    def _half_precision(self) -> torch.autocast:
        """bfloat16 where the configuration asks for it. No cast is cached: an objective of its own may move the weights between two passes."""
        return torch.autocast(self.policy.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16", cache_enabled=False)

    def _objective_gradient(self) -> Losses:
        """L(theta; current) + beta L_replay(theta), and its gradient."""
        current = self.windows.draw(self.config.batch_size, self.stream("windows"))
        replayed = self._replay_batch(self.stream("replay"))
        losses = self.losses(current, replayed, self.stream("noise"))
        self.backward(self.weighted(losses))
        return losses

    def losses(self, current: WindowBatch | None, replayed: WindowBatch | None, generator: torch.Generator) -> Losses:
        """Diffusion loss on the current windows, distillation loss on the replayed ones, at the present parameters: one forward pass for both.

        Where processes share the rows, this process's part of them: `of_all_rows` adds them up, `backward` their gradients.
        """
        batch = WindowBatch.concatenate([part for part in (current, replayed) if part is not None])
        timestep, noise = self.policy.diffusion.draw(tuple(batch.actions.shape), generator)
        timestep, noise = timestep.to(batch.actions.device), noise.to(batch.actions.device)
        new = of_new = 0 if current is None else len(current)
        of_replayed = len(batch) - new
        rows = self.ranks.rows
        batch, timestep, noise, new = batch[rows], timestep[rows], noise[rows], len(range(new)[rows])
        noisy = self.policy.diffusion.add_noise(batch.actions, noise, timestep)
        condition = self.policy.condition(batch.observations, batch.task)
        predicted = self.policy.predict_noise(noisy, timestep, condition).float()

        loss = self.ranks.mean_square(predicted[:new], noise[:new], of_new) if of_new else None
        if replayed is None:
            return Losses(loss, None)
        target = self._replay_target(noisy[new:], timestep[new:], condition[new:], noise[new:])
        return Losses(loss, self.ranks.mean_square(predicted[new:], target, of_replayed))

    def of_all_rows(self, losses: Losses) -> Losses:
        """The losses of the whole batch from what `losses` gave; where processes share the rows, detached."""
        return self.ranks.add_up_losses(losses)

    def weighted(self, losses: Losses) -> Tensor:
        """The sum that is descended."""
        terms = [weight * loss for weight, loss in zip(self.loss_weights, losses, strict=True) if loss is not None]
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def backward(self, loss: Tensor) -> None:
        """Put the gradient of a loss that was made of `losses` into `parameters.gradient` (P,), which must be zero; where processes share
        the rows, the gradient of all rows."""
        loss.backward()
        self.ranks.add_up(self.parameters.gradient)

    def end_stage(self) -> None:
        """Hand over: the averaged weights are this stage's optimum, the next stage starts from them."""
        self.ranks = OneProcess()
        self.parameters.values.copy_(self.averaged)
        for hook in self.method.hooks:
            hook.on_stage_end(self)
        self.teacher = self.policy.clone()
        self.second_moment = self.optimizer.second_moment() if self.config.optimizer.carry_second_moment else None

    def acting_policy(self) -> DiffusionPolicy:
        """A frozen copy with the averaged weights."""
        copy = self.policy.clone()
        for parameter, value in zip(copy.denoiser.parameters(), self.parameters.unflatten(self.averaged).values(), strict=True):
            parameter.data.copy_(value)
        return copy

    # parts of an update

    def stream(self, purpose: str) -> torch.Generator:
        """The generator of this update for a purpose."""
        return self.streams.generator(purpose, self.update_index)

    @property
    def replay_target(self) -> ReplayTarget:
        """What replayed windows are to predict: `teacher`, the frozen teacher's noise (in the first stage, without one, as `noise`), or `noise`,
        the noise that was added. Of the method, unless `train.distillation` says otherwise."""
        return self.method.target if self.config.distillation == "method" else self.config.distillation

    def _replay_batch(self, generator: torch.Generator) -> WindowBatch | None:
        if self.config.replayed == 0:
            return None
        batches = [hook.replay_batch(self, self.config.replayed, generator) for hook in self.method.hooks]
        drawn = [batch for batch in batches if batch is not None]
        return WindowBatch.concatenate(drawn) if drawn else None

    def _replay_target(self, noisy: Tensor, timestep: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        if self.replay_target == "noise" or self.teacher is None or len(noisy) == 0:
            return noise
        with torch.no_grad():
            return self.teacher.predict_noise(noisy, timestep, condition).float()

    def _add_penalty_gradients(self) -> Tensor | None:
        total = None
        for hook in self.method.hooks:
            if (penalty := hook.add_penalty_gradient(self)) is not None:
                total = penalty if total is None else total + penalty
        return total

    def _clip_gradient(self) -> Tensor:
        norm = self.parameters.gradient.norm()
        if self.config.optimizer.max_gradient_norm > 0:
            self.parameters.gradient.mul_((self.config.optimizer.max_gradient_norm / (norm + 1e-6)).clamp_max(1.0))
        return norm

    # within a stage

    def underway(self) -> dict[str, np.ndarray]:
        """The stage so far, between two updates: `load_underway` goes on from it as if nothing had happened."""
        arrays = {"values": self.parameters.values.cpu().numpy(), "averaged": self.averaged.cpu().numpy()}
        arrays["largest_gradient"] = self.watch.largest.cpu().numpy()
        arrays |= {f"optimizer.{name}": array for name, array in self.optimizer.arrays().items()}
        for hook in self.method.hooks:
            arrays |= {f"{hook.name}.{name}": array for name, array in hook.underway().items()}
        return arrays

    def load_underway(self, arrays: dict[str, np.ndarray]) -> None:
        """Call it after `begin_stage`, on a learner at the end of the stage before. Raises DamagedFile when the arrays belong to another one."""
        vectors = {"values": self.parameters.values, "averaged": self.averaged, "largest_gradient": self.watch.largest}
        arrays = {"largest_gradient": np.zeros(1, np.float32), **arrays}  # which earlier versions did not save
        for name, vector in vectors.items():
            vector.copy_(take(arrays, name, tuple(vector.shape), "underway.safetensors"))
        self.optimizer.load_arrays(_under("optimizer", arrays))
        self.update_index = self.optimizer.done
        for hook in self.method.hooks:
            hook.load_underway(self, _under(hook.name, arrays))

    # checkpoints, at the end of a stage

    def arrays(self) -> dict[str, np.ndarray]:
        """What the method's hooks remember, and the optimizer where it does; the parameters are in the policy's own state."""
        carried = {} if self.second_moment is None else self.second_moment.arrays()
        arrays = {f"optimizer.{name}": array for name, array in carried.items()}
        for hook in self.method.hooks:
            arrays |= {f"{hook.name}.{name}": array for name, array in hook.arrays().items()}
        return arrays

    def load_arrays(self, stage: int, arrays: dict[str, np.ndarray]) -> None:
        """Continue after the end of `stage` from what `arrays` gave there; the policy's state has been loaded already."""
        self.stage = stage
        self.averaged.copy_(self.parameters.values)
        for hook in self.method.hooks:
            hook.load_arrays(_under(hook.name, arrays))
        self.teacher = self.policy.clone() if stage > 0 else None
        carried = self.config.optimizer.carry_second_moment and stage > 0
        self.second_moment = SecondMoment.of(_under("optimizer", arrays), self.averaged, "learner.safetensors") if carried else None


def _under(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `name.`, without it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
