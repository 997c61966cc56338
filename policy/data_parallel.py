"""Data parallelism: several processes, the ranks of one run, each compute a share of every batch and then make the same step.

    three ranks, a batch of 4 current (c) and 3 replayed (r) windows

                    c0  c1  c2  c3  r0  r1  r2
      rank 0        x           x           x        2 current, 1 replayed
      rank 1            x           x                1 current, 1 replayed
      rank 2                x           x            1 current, 1 replayed

      draw          indices, timesteps and noise of all 7 rows, on every rank: they are a function of (seed, stage, update)
      loss          of a rank: its rows' squared errors over the number of *all* rows, so that the ranks' losses add up to the mean
      gradient      all-reduced once, as one vector: the same bits on every rank
      step          made by every rank for itself, from the same bits

So the weights are those of one process but for the order of additions. Only a run of several processes imports this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from reconverge.envs.errors import ProcessLost
from reconverge.envs.plain_json import parse_json
from reconverge.policy.hooks import Losses

ANSWER_WITHIN = timedelta(minutes=10)
"""The longest that a rank is waited for in the middle of an update."""
WAIT_AT_MOST = timedelta(days=7)
"""The longest that a rank waits for rank 0 to evaluate or collect. One that ends closes its connections, which is noticed at once."""
SENT_AT_ONCE = 2**26  # bytes


class Ranks:
    """The processes of one run, seen from one of them; `OneProcess` where there is one.

    Attributes:
        rank: of this process; 0 leads.
        count: of processes.
        rows: this rank's share of the rows of a batch.
        on_loss: called when another rank turns out to be gone, ahead of the error.
    """

    on_loss: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count, self.rows = rank, count, slice(rank, None, count)
        self._gradients: Any = None
        self._messages: Any = None

    @classmethod
    def join(cls, rank: int, count: int, backend: str) -> Ranks:
        """Meet the other ranks where the environment of torchrun says. Gradients go through `backend`: nccl on GPUs, gloo on CPUs."""
        ranks = cls(rank, count)
        with ranks._all_answering():
            dist.init_process_group("gloo", rank=rank, world_size=count, timeout=ANSWER_WITHIN)
            ranks._gradients = dist.group.WORLD if backend == "gloo" else dist.new_group(backend=backend, timeout=ANSWER_WITHIN)
            ranks._messages = dist.new_group(backend="gloo", timeout=WAIT_AT_MOST)
        return ranks

    def leave(self) -> None:
        """Part from the others. A group that is still held when the interpreter ends has threads by which it aborts."""
        self._gradients = self._messages = None
        dist.destroy_process_group()

    # an update

    def mean_square(self, predicted: Tensor, target: Tensor, rows: int) -> Tensor:
        """(): this rank's part of the mean squared error over a batch of `rows`, from its own rows (b, ...)."""
        errors = (predicted - target).square()
        return errors.sum() / (rows * errors.shape[1:].numel())

    def add_up(self, vector: Tensor) -> None:
        """The sum over all ranks in place of `vector`, the same bits on each of them."""
        with self._all_answering():
            dist.all_reduce(vector, group=self._gradients)

    def add_up_losses(self, losses: Losses) -> Losses:
        """The losses of the whole batch from those of this rank's rows."""
        if all(loss is None for loss in losses):
            return losses
        together = torch.stack([loss.detach() for loss in losses if loss is not None])
        self.add_up(together)
        parts = iter(together)
        return Losses(*(None if loss is None else next(parts) for loss in losses))

    # between updates

    def tell(self, *numbers: int) -> None:
        """Rank 0: send a few numbers, for which the others wait in `listen`."""
        self._send(torch.tensor(numbers))

    def listen(self, count: int) -> list[int]:
        """The other ranks: wait for `count` numbers of rank 0."""
        numbers = torch.empty(count, dtype=torch.int64)
        self._send(numbers)
        return [int(number) for number in numbers]

    def send_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Rank 0: send arrays, for which the others wait in `receive_arrays`."""
        described = json.dumps([[name, array.dtype.str, array.shape] for name, array in arrays.items()]).encode()
        self.tell(len(described))
        for content in (np.frombuffer(described, np.uint8), *arrays.values()):
            flat = content.reshape(-1).view(np.uint8)
            for part in _parts(len(flat)):
                self._send(torch.from_numpy(flat[part].copy()))

    def receive_arrays(self) -> dict[str, np.ndarray]:
        (length,) = self.listen(1)
        described = self._received(np.empty(length, np.uint8)).tobytes()
        names = parse_json(described, "what rank 0 sent")
        return {name: self._received(np.empty(shape, kind)) for name, kind, shape in names}

    def agree(self, vector: Tensor) -> bool:
        """Whether a float32 vector (P,) has the same bits on every rank, as far as their sum tells."""
        total = int(vector.view(torch.int32).sum())
        bounds = torch.tensor([total, -total])
        with self._all_answering():
            dist.all_reduce(bounds, dist.ReduceOp.MAX, group=self._messages)
        return bool(bounds[0] == -bounds[1])

    def _received(self, array: np.ndarray) -> np.ndarray:
        flat = torch.from_numpy(array.reshape(-1).view(np.uint8))
        for part in _parts(len(flat)):
            self._send(flat[part])
        return array

    def _send(self, content: Tensor) -> None:
        """From rank 0 into `content` on the others."""
        with self._all_answering():
            dist.broadcast(content, src=0, group=self._messages)

    @contextmanager
    def _all_answering(self) -> Iterator[None]:
        """torch's error for a connection that broke, in the words of a run."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.on_loss()
            said = re.sub(r"^\[[^]]*\] ", "", str(error)).partition(". ")[0]  # without gloo's source file and its guesses
            raise ProcessLost(f"another process of this run ended or does not answer ({said[:200]})") from error


def _parts(length: int) -> list[slice]:
    return [slice(start, start + SENT_AT_ONCE) for start in range(0, length, SENT_AT_ONCE)]
