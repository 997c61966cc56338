"""The trust region's penalty and gradient for K earlier tasks: `TrustRegion` against a loop over tasks and parameters.

The loop is that of Avalanche's EWC in its separate mode: per earlier task a dictionary of importances and one of optima, a Python
loop over both, and autograd for the gradient. Its penalty is the rank-1 one here, because Avalanche's diagonal one is another
function. avalanche-lib 0.6.0 itself installs beside this project's pins but does not import: its torchvision 0.28.0 on PyPI is built
for the CUDA build of torch 2.13.0, not for the CPU build. So the loop is re-created from its published description.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.harness import Bench, Equality, Peer, Side, relatively_close
from benchmarks.policies import untrained
from benchmarks.update import made_up_optima
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.fisher import Rank1Fisher
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.trust_region import TrustRegion

BOUND = 1e-4
STRENGTH = 12.0
EARLIER_TASKS = (1, 9, 20, 50)


def run(bench: Bench) -> None:
    config = PolicyConfig(mlp=ResidualMLPConfig(16, 1, 8)) if bench.size == "tiny" else PolicyConfig()
    for earlier in bench.pick(EARLIER_TASKS, EARLIER_TASKS, (1, 3)):
        _compare(bench, untrained(config).denoiser, earlier)


def _compare(bench: Bench, network: nn.Module, earlier: int) -> None:
    parameters = FlatParameters(network)
    region, loop = _both(network, parameters, earlier)
    bench.compare(
        f"penalty and gradient, {earlier} earlier tasks, {len(parameters)} parameters",
        Peer.recreated("Avalanche's separate-mode EWC loop with the rank-1 penalty", "torch"),
        lambda: _same_penalty(region, loop, parameters.values),
        Side(lambda: region.add_gradient(parameters.values, parameters.gradient)),
        Side(loop.penalty_and_gradient),
        unit="us",
        kind="exact rewrite",
        share=0.5,
    )


@dataclass(frozen=True)
class EarlierTask:
    importance: dict[str, Tensor]
    curvature: float
    optimum: dict[str, Tensor]


class SeparateLoop:
    """Per task and parameter; the gradient is left in `parameter.grad`, as `backward` does."""

    def __init__(self, network: nn.Module, tasks: list[EarlierTask]) -> None:
        self.network, self.tasks = network, tasks

    def penalty_and_gradient(self) -> Tensor:
        self.network.zero_grad(set_to_none=True)
        penalty = torch.zeros(())
        for task in self.tasks:
            distance = torch.zeros(())
            for name, parameter in self.network.named_parameters():
                distance = distance + (task.importance[name] * (parameter - task.optimum[name])).sum()
            penalty = penalty + task.curvature * distance.square()
        penalty = STRENGTH / 2 * penalty
        penalty.backward()
        return penalty.detach()


def _both(network: nn.Module, parameters: FlatParameters, earlier: int) -> tuple[TrustRegion, SeparateLoop]:
    region, tasks = TrustRegion(STRENGTH, len(parameters)), []
    for mu, optimum in made_up_optima(parameters.values, earlier):
        region.add(Rank1Fisher(mu, 1.0, 2, 0.0, 0.0, 0.0), optimum)
        tasks.append(EarlierTask(parameters.unflatten(mu.clone()), 1.0, parameters.unflatten(optimum.clone())))
    return region, SeparateLoop(network, tasks)


def _same_penalty(region: TrustRegion, loop: SeparateLoop, theta: Tensor) -> Equality:
    gradient = torch.zeros_like(theta)
    penalty = region.add_gradient(theta, gradient)
    their_penalty = loop.penalty_and_gradient()
    theirs = torch.cat([parameter.grad.reshape(-1) for parameter in loop.network.parameters() if parameter.grad is not None])
    return relatively_close("penalty", [float(penalty)], [float(their_penalty)], BOUND) & relatively_close("gradient", gradient, theirs, BOUND)
