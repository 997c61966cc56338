"""Meta-learning baselines of arXiv 2602.02417, first order: what counts is the loss *after* a small step on other data.

    support   theta' = theta - alpha grad L(support; theta)        one step of plain gradient descent
    query     h = grad L(query; theta')                            handed to the optimizer in place of grad L(theta)

    ftml      support and query are two batches of one task, drawn among those seen (follow the meta leader)
    vr-mcl    support is current data, query is current data and replay, and the meta-gradient's noise is reduced by
              d_k = h_k(theta_k) + m (d_{k-1} - h_k(theta_{k-1})), both h of the batches of update k

As published they learn generated windows with the added noise as target; `train.distillation=teacher` lets the frozen teacher
set it, as it does for replay and the trust region. Batches are half of `train.batch_size`, so that an update of `ftml` costs
what one of `finetune` does. Second-order terms are left out, as in the published code.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reconverge.policy.config import TrainConfig
from reconverge.policy.hooks import Hook, Losses, Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.replay import WindowSource, draw_of
from reconverge.policy.saved_arrays import take
from reconverge.policy.windows import WindowBatch

Loss = Callable[[], Losses]  # of a fixed batch, at whatever the parameters are when it is called


class FollowTheMetaLeader(Hook):
    """Every update is about one of the tasks seen so far, the current one among them, each as likely as the others."""

    name = "follow the meta leader"

    def __init__(self, source: WindowSource, config: TrainConfig) -> None:
        self.source, self.config = source, config

    def on_stage_start(self, learner: Learner) -> None:
        learner.loss_weights = (1.0, 1.0)  # every update is about one task, whichever

    def objective_gradient(self, learner: Learner) -> Losses:
        seen = sorted(learner.current_tasks.union(self.source.tasks))
        task = seen[int(torch.randint(len(seen), (), generator=learner.stream("meta task")))]
        support, query = (self._loss(learner, task, purpose) for purpose in ("support", "query"))
        return add_meta_gradient(learner, support, query, self.config.meta.inner_learning_rate)

    def _loss(self, learner: Learner, task: int, purpose: str) -> Loss:
        """The loss of one batch of the task: of its demonstrations while it is learned, of replayed windows afterwards."""
        half = self.config.batch_size // 2
        if task in learner.current_tasks:
            return batch_loss(learner, learner.windows.draw(half, learner.stream(purpose)), None, purpose)
        return batch_loss(learner, None, draw_of(self.source, task, half, learner.stream(purpose)), purpose)


class VarianceReducedMeta(Hook):
    """Current data must help, not hurt, what is rehearsed; with momentum variance reduction."""

    name = "variance reduction"

    def __init__(self, source: WindowSource, config: TrainConfig) -> None:
        self.source, self.config = source, config
        self.before: tuple[Tensor, Tensor] | None = None  # theta_{k-1}, d_{k-1}

    def on_stage_start(self, learner: Learner) -> None:
        """The optimizer is fresh and the objective another one: the momentum starts anew."""
        self.before = None

    def objective_gradient(self, learner: Learner) -> Losses:
        half, rate, parameters = self.config.batch_size // 2, self.config.meta.inner_learning_rate, learner.parameters
        replayed = self.source.draw(half, learner.stream("replay"), without=learner.current_tasks)
        support = batch_loss(learner, learner.windows.draw(half, learner.stream("support")), None, "support")
        query = batch_loss(learner, learner.windows.draw(half, learner.stream("query")), replayed, "query")

        theta, correction = parameters.values.clone(), torch.zeros_like(parameters.values)
        if self.before is not None:
            earlier, direction = self.before
            parameters.values.copy_(earlier)
            add_meta_gradient(learner, support, query, rate)
            correction = self.config.meta.momentum * (direction - parameters.gradient)
            parameters.values.copy_(theta)
            parameters.gradient.zero_()
        losses = add_meta_gradient(learner, support, query, rate)
        parameters.gradient.add_(correction)
        self.before = theta, parameters.gradient.clone()
        return losses

    def underway(self) -> dict[str, np.ndarray]:
        if self.before is None:
            return {}
        return {name: part.cpu().numpy() for name, part in zip(("theta", "direction"), self.before, strict=True)}

    def load_underway(self, learner: Learner, arrays: dict[str, np.ndarray]) -> None:
        if arrays:
            size = tuple(learner.averaged.shape)
            theta, direction = (take(arrays, name, size, "underway.safetensors").to(learner.averaged) for name in ("theta", "direction"))
            self.before = theta, direction


def batch_loss(learner: Learner, current: WindowBatch | None, replayed: WindowBatch | None, purpose: str) -> Loss:
    """The loss of these windows; the same timesteps and noise whenever it is called."""
    return lambda: learner.losses(current, replayed, learner.stream(f"{purpose} noise"))


def add_meta_gradient(learner: Learner, support: Loss, query: Loss, inner_learning_rate: float) -> Losses:
    """Add the first-order meta-gradient to `learner.parameters.gradient` (P,), which must be zero; returns the query's losses."""
    parameters = learner.parameters
    theta = parameters.values.clone()
    learner.backward(learner.weighted(support()))
    parameters.values.sub_(parameters.gradient, alpha=inner_learning_rate)
    parameters.gradient.zero_()
    losses = query()
    learner.backward(learner.weighted(losses))
    parameters.values.copy_(theta)
    return losses


def ftml(source: WindowSource, config: TrainConfig) -> Method:
    return Method("ftml", (FollowTheMetaLeader(source, config),), target="noise")


def vr_mcl(source: WindowSource, config: TrainConfig) -> Method:
    return Method("vr-mcl", (VarianceReducedMeta(source, config),), target="noise")
