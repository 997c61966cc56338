"""A run of one process: every row of a batch is its own. `data_parallel.Ranks` is the same for one process of several."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import mse_loss

from reconverge.policy.hooks import Losses


class OneProcess:
    """What the learner asks of the processes that share a batch, where there is one.

    Attributes:
        rows: which of a batch's rows this process computes.
    """

    rows = slice(None)

    def mean_square(self, predicted: Tensor, target: Tensor, rows: int) -> Tensor:
        """(): this process's part of the mean squared error over a batch of `rows`, from its own rows (b, ...)."""
        return mse_loss(predicted, target)

    def add_up(self, vector: Tensor) -> None:
        """The sum over all processes in place of `vector`."""

    def add_up_losses(self, losses: Losses) -> Losses:
        """The losses of the whole batch from those of this process's rows."""
        return losses
