"""Floating-point operations of a run, by the formulas of `torch.utils.flop_counter`.

    counted in every stage     one update, the second: the first may lack what builds on an update before it (vr-mcl)
                               one update of the generator, likewise; the refilled pools in whole
    counted once               one acting query: a window in, a chunk out, through the whole sampler
    multiplied                 by the updates of the stage, those of the generator, and the queries of the evaluated episodes

The formulas know matrix products, convolutions and attention, forward and backward; a multiplication and an addition are two operations.
What is done element by element, and products of a matrix and a vector (the trust region's), are not in them.

Counting must not change a bit. `FlopCounterMode` itself takes fused operations apart, so that an update ends with other last bits; here every
operation runs as it is. The Fisher at a stage's end is not counted: forward-mode derivatives take another path while anybody counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from reconverge.eval.rollout import EpisodeResult
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import torch_stream

ONE_QUERY, ONE_UPDATE, IN_ALL = "one query", "one update", "in all"

Result = TypeVar("Result")


class FlopCount(TorchDispatchMode):
    """Within it, what torch computes is counted: `flops` so far."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        formula = flop_registry.get(operation._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def counted(work: Callable[[], Result]) -> tuple[Result, int]:
    """What `work` returns, and its FLOPs."""
    with FlopCount() as count:
        result = work()
    return result, count.flops


class SecondPiece:
    """A tick, called after every one of `of` equal pieces of work, that counts the FLOPs of the second piece (of the only one, if it is).

    with SecondPiece(tick, 500) as piece:
        learn(tick=piece)
    piece.flops * piece.done    those of all pieces
    """

    def __init__(self, tick: Callable[[int], None], of: int) -> None:
        self.tick, self.done, self.flops = tick, 0, 0
        self._begins = min(1, of - 1)
        self._count: FlopCount | None = None

    def __enter__(self) -> Self:
        self._switch()
        return self

    def __call__(self, pieces: int = 1) -> None:
        self.done += pieces
        self._switch()
        self.tick(pieces)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._count is not None:
            self._count.__exit__(kind, error, trace)

    def _switch(self) -> None:
        if self._count is not None:
            self._count.__exit__(None, None, None)
            self.flops, self._count = self._count.flops, None
        elif self.done == self._begins:
            self._count = FlopCount()
            self._count.__enter__()


def flops_of_query(policy: DiffusionPolicy) -> int:
    """FLOPs of one acting query: To observations of one environment to one chunk, whatever they are."""
    seen = torch.zeros(1, policy.config.window, policy.observation_size, device=policy.device)
    label = torch.zeros(1, dtype=torch.int64, device=policy.device)
    return counted(lambda: policy.sample_chunk(seen, label, [torch_stream("counted query")]))[1]


def queries(results: Iterable[EpisodeResult], executed: int) -> int:
    """How often the policy was asked for a chunk in these episodes, of which `executed` steps were taken each time."""
    return sum(-(-result.steps // executed) for result in results)


def flops_of_run(stages: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """One query, one update of the last stage, and the FLOPs of every phase over all stages with their sum; empty where a stage did not count."""
    if not stages or any(ONE_QUERY not in stage for stage in stages) or any(ONE_UPDATE not in stage for stage in stages[1:]):
        return {}
    single = {name: stages[-1][name] for name in (ONE_QUERY, ONE_UPDATE) if name in stages[-1]}
    phases: dict[str, int] = {}
    for stage in stages:
        for name, flops in stage.items():
            if name not in (ONE_QUERY, ONE_UPDATE):
                phases[name] = phases.get(name, 0) + flops
    return {**single, **phases, IN_ALL: sum(phases.values())}
